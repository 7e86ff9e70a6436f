"""Photos with a class for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from semsam.config import CfgNode, configurable
from semsam.data.build import DATASET_MAPPER
from semsam.data.records import BadRecordError, LazyImage, decode_labels
from semsam.data.transforms import (
    LargeScaleJitter,
    ResizeShortestEdge,
    read_geometry,
    recolor,
)

#: Label of what the jitter pads; like any label that is no class it is not learned.
PADDING_LABEL = 255


@DATASET_MAPPER.register
class SemSegMapper:
    """Reads a photo and its label map.

    Training: large-scale jitter to a square, and jitter of brightness, contrast and saturation.
    Evaluation: the photo resized, the labels in the photo's frame.

    Args:
        is_train: which of the two.
        jitter: the geometry of training.
        resize: the evaluation resize.
        color_jitter: share by which colours vary in training, see ``recolor``.
        padding: colour of what the jitter pads, RGB; the pixel mean, which the model sees as 0.
    """

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        jitter: LargeScaleJitter,
        resize: ResizeShortestEdge,
        color_jitter: float = 0.0,
        padding: Sequence[int] = (124, 116, 104),
    ) -> None:
        self.is_train = is_train
        self.jitter = jitter
        self.resize = resize
        self.color_jitter = color_jitter
        self.padding = tuple(padding)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool) -> dict[str, Any]:
        """Read INPUT, and the colour of the padding from MODEL."""
        node = cfg.INPUT
        return {
            "is_train": is_train,
            **read_geometry(node),
            "color_jitter": node.COLOR_JITTER,
            "padding": [round(value) for value in cfg.MODEL.PIXEL_MEAN],
        }

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Map one record with a class for every pixel (see ``semsam.data.records``).

        In training ``record["rng"]``, a ``numpy.random.Generator``, gives every random number.

        Returns:
            ``image`` (uint8 (3, h, w) RGB tensor), ``sem_seg`` (int64 (H, W) labels; in training of
            the size of ``image``, else of the photo), ``file_name``, ``image_id``, and ``height``
            and ``width`` of ``sem_seg``.

        Raises:
            BadRecordError: if the photo or its labels are damaged, or differ in size.
        """
        photo = LazyImage(record)
        labels = decode_labels(record)
        if labels.shape != photo.size:
            raise BadRecordError(
                f"{record['file_name']}: labels are {labels.shape}, the photo {photo.size}"
            )
        image = photo.decode()
        if self.is_train:
            rng = record["rng"]
            geometry = self.jitter(photo.size, rng)
            labels = geometry.apply_labels(labels, PADDING_LABEL)
            image = recolor(image, self.color_jitter, rng)
        else:
            geometry = self.resize(photo.size)
        pixels = geometry.apply_image(image, self.padding)
        return {
            "image": torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
            "sem_seg": torch.from_numpy(labels.astype(np.int64)),
            "file_name": record["file_name"],
            "image_id": record["image_id"],
            "height": labels.shape[0],
            "width": labels.shape[1],
        }
