"""A sentence about each mask, by SCA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from semsam.config import CfgNode, configurable
from semsam.inference.captioner import RegionCaptioner
from semsam.modeling.build import resolve_device
from semsam.modeling.pretrained import read_dtype

from .build import LABELER
from .crops import photo_boxes
from .records import Labels, MaskedPhoto


@LABELER.register
class RegionCaptionLabeler:
    """Describes each mask with a model that reads the whole photo once, instead of a patch a mask.

    Args:
        captioner: the model.
        num_beams: of the search; None for the model's own.
        task: "caption", or "recognition" for a name; None for the model's own.
    """

    @configurable
    def __init__(
        self, captioner: RegionCaptioner, num_beams: int | None = None, task: str | None = None
    ) -> None:
        self.captioner = captioner
        self._num_beams = num_beams
        self._task = task

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments of ``__init__`` from ``cfg.ANNOTATION.REGION_CAPTION``."""
        node = cfg.ANNOTATION.REGION_CAPTION
        device = resolve_device(cfg.MODEL.DEVICE)
        default = torch.bfloat16 if device.type == "cuda" else torch.float32
        captioner = RegionCaptioner.from_pretrained(
            node.MODEL,
            device=str(device),
            weights=node.WEIGHTS or None,
            regions_per_batch=node.BATCH_SIZE,
            dtype=read_dtype(cfg.ANNOTATION.DTYPE, "ANNOTATION.DTYPE") or default,
        )
        return {
            "captioner": captioner,
            "num_beams": node.NUM_BEAMS or None,
            "task": node.TASK or None,
        }

    def label(self, photos: Sequence[MaskedPhoto]) -> list[Labels]:
        """Sentences about the masks of each photo.

        Returns:
            For each mask ``caption`` and ``caption_score``, the mean log-probability of its tokens.

        Raises:
            ValueError: if a mask has no box.
        """
        # All boxes are looked at before a model runs.
        boxes = [photo_boxes(photo, scale=1.0) for photo in photos]
        return [self._label(*each) for each in zip(photos, boxes, strict=True)]

    def _label(self, photo: MaskedPhoto, boxes: NDArray[np.int64]) -> Labels:
        if not photo.annotations:
            return Labels([])
        # Inside the photo; others than SA-1B count the last pixel in a box's width.
        records: list[dict[str, Any]] = [
            {"bbox": [x1, y1, x2 - x1, y2 - y1]} for x1, y1, x2, y2 in boxes.tolist()
        ]
        self.captioner.set_image(photo.image)
        self.captioner.caption_masks(records, num_beams=self._num_beams, task=self._task)
        regions = [
            {"caption": r["caption"], "caption_score": round(r["caption_score"], 6)}
            for r in records
        ]
        return Labels(regions)
