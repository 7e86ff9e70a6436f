"""Masks of photos without a trained network, as a source of masks of one's own."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from semsam.annotation.build import MASK_SOURCE
from semsam.annotation.mask_models import FoundMasks
from semsam.annotation.mask_sources import check_annotations
from semsam.annotation.records import MaskedPhoto
from semsam.annotation.shards import open_photos
from semsam.config import CfgNode, configurable
from semsam.data.datasets.hierarchy import segment_hierarchy
from semsam.inference.amg_utils import encode_mask


def add_config(cfg: CfgNode) -> None:
    """Add the source's keys to ``cfg``; called because the yaml names this file in IMPORTS."""
    node = cfg.ANNOTATION.MASKS.CLASSICAL = CfgNode()
    # Regions of the finest level, about.
    node.NUM_SUPERPIXELS = 2000
    # The most persistent regions are kept.
    node.MAX_MASKS = 200
    # Least and greatest share of the photo.
    node.MIN_AREA = 0.001
    node.MAX_AREA = 0.1


@MASK_SOURCE.register
class ClassicalMasks(FoundMasks):
    """Superpixels and their unions, nested, each with ``segmentation``, ``area`` and ``bbox``.

    Nothing predicts how good a mask is, so there is no score.

    Args:
        images: a folder, an image, or TSV shards.
        num_superpixels: this and the others as for ``segment_hierarchy``.
        max_masks: most masks of a photo.
        min_area: least share of the photo.
        max_area: greatest share of the photo.

    Raises:
        ModuleNotFoundError: if scikit-image is not installed.
        ValueError: if a number is not positive, or the least area is above the greatest.
    """

    @configurable
    def __init__(
        self,
        images: str | Path,
        num_superpixels: int,
        max_masks: int,
        min_area: float,
        max_area: float,
    ) -> None:
        super().__init__(open_photos(images))
        if importlib.util.find_spec("skimage") is None:
            raise ModuleNotFoundError("ClassicalMasks needs scikit-image: pip install scikit-image")
        if min(num_superpixels, max_masks) < 1 or not 0 <= min_area <= max_area:
            raise ValueError(
                "ANNOTATION.MASKS.CLASSICAL: at least one superpixel and one mask, and MIN_AREA up "
                f"to MAX_AREA, not {num_superpixels}, {max_masks}, {min_area}, {max_area}"
            )
        self.settings: dict[str, Any] = {
            "num_superpixels": num_superpixels,
            "max_masks": max_masks,
            "min_area": min_area,
            "max_area": max_area,
        }

    @classmethod
    def from_config(cls, cfg: CfgNode, images: str | Path) -> dict[str, Any]:
        """Translate the configuration."""
        node = cfg.ANNOTATION.MASKS.CLASSICAL
        return {
            "images": images,
            "num_superpixels": node.NUM_SUPERPIXELS,
            "max_masks": node.MAX_MASKS,
            "min_area": node.MIN_AREA,
            "max_area": node.MAX_AREA,
        }

    def find_masks(self, photos: Sequence[MaskedPhoto]) -> list[MaskedPhoto]:
        """See ``MaskSource``."""
        return [replace(photo, annotations=self._find(photo)) for photo in photos]

    def _find(self, photo: MaskedPhoto) -> list[dict[str, Any]]:
        nested = segment_hierarchy(photo.image, **self.settings)
        annotations = [
            {"segmentation": encode_mask(nested.mask(index), "coco_rle")}
            for index in range(len(nested))
        ]
        return check_annotations(annotations, photo.image)
