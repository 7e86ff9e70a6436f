"""Photos whose evaluation gives no prompt: the model finds everything itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from semsam.config import CfgNode, configurable
from semsam.data.build import DATASET_MAPPER, Mapper
from semsam.data.records import LazyImage
from semsam.data.transforms import ResizeShortestEdge, read_geometry

from .promptable import PromptableMapper


@DATASET_MAPPER.register
class PhotoMapper:
    """Reads a photo; in training also its masks, classes and prompts on them.

    Training: ``PromptableMapper``. Evaluation: the resized photo alone, of whatever it shows, so
    that what is found where there is no object counts.

    Args:
        resize: the evaluation resize.
        train: the mapper of training; None for evaluation.
    """

    @configurable
    def __init__(self, *, resize: ResizeShortestEdge, train: Mapper | None = None) -> None:
        self.resize = resize
        self.train = train

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool) -> dict[str, Any]:
        """Read INPUT."""
        return {
            "resize": read_geometry(cfg.INPUT)["resize"],
            "train": PromptableMapper(cfg, is_train) if is_train else None,
        }

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Map one record (see ``semsam.data.records``).

        Returns:
            In evaluation what the record has beside the encoded photo, ``image`` (uint8 (3, h, w)
            RGB tensor), and ``height`` and ``width`` of the photo.

        Raises:
            BadRecordError: if the photo is damaged; in training as ``PromptableMapper``.
        """
        if self.train is not None:
            return self.train(record)
        photo = LazyImage(record)
        pixels = self.resize(photo.size).apply_image(photo.decode())
        height, width = photo.size
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        kept = {key: value for key, value in record.items() if key != "image_bytes"}
        return {**kept, "image": image, "height": height, "width": width}
