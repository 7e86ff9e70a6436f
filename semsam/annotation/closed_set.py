"""Masks take the class that a semantic segmenter sees most in them (Semantic-Segment-Anything).

Chen, Yang and Zhang, "Semantic Segment Anything", 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semsam.config import CfgNode, configurable
from semsam.data.run_length import RunLengthMasks
from semsam.data.semantic_mask import encode_semantic_mask
from semsam.modeling.pretrained import read_dtype

from .build import LABELER
from .records import Labels, MaskedPhoto
from .segmenters import Segmenter, load_segmenters


@dataclass(frozen=True)
class Votes:
    """What N masks of one photo are by a vote of their pixels.

    Attributes:
        classes: N class ids; None for a mask without pixels.
        shares: N shares, 0 to 1, of a mask's pixels that are of its class; 0 without pixels.
        class_map: (H, W) the segmenter's map with the masks painted over it, large ones first.
    """

    classes: list[int | None]
    shares: list[float]
    class_map: NDArray[np.integer]


def vote(class_map: NDArray[np.integer], masks: RunLengthMasks) -> Votes:
    """Give each mask its most frequent class, and paint the masks over the map.

    Masks are painted by falling area, of equals the earlier first, so that small ones stay visible.
    Every vote counts the pixels of the map as it was given. Of classes that are equally frequent
    the lowest id wins, where the original takes any.

    Args:
        class_map: (H, W) class ids of a segmenter, not negative.
        masks: N masks of that size.

    Raises:
        ValueError: if map and masks are of different sizes.
    """
    if class_map.shape != masks.size:
        raise ValueError(f"the class map is {class_map.shape}, the masks are {masks.size}")
    # Windows of masks come column by column.
    columns = np.ascontiguousarray(class_map.T)
    painted = columns.copy()
    classes: list[int | None] = [None] * len(masks)
    shares = [0.0] * len(masks)
    for index in np.argsort(-masks.areas, kind="stable"):
        area = int(masks.areas[index])
        if not area:
            continue
        x, y, mask = masks.window(index)
        window = np.s_[x : x + mask.shape[0], y : y + mask.shape[1]]
        counts = np.bincount(columns[window][mask])
        winner = int(counts.argmax())
        classes[index], shares[index] = winner, float(counts[winner] / area)
        np.copyto(painted[window], winner, where=mask)
    return Votes(classes, shares, np.ascontiguousarray(painted.T))


def build_segmenters(cfg: CfgNode) -> list[Segmenter]:
    """The segmenters of ``cfg.ANNOTATION.CLOSED_SET``, on ``MODEL.DEVICE``.

    Raises:
        ValueError: as ``load_segmenters``.
        RuntimeError: if a model cannot be loaded.
    """
    node = cfg.ANNOTATION.CLOSED_SET
    return load_segmenters(
        node,
        "ANNOTATION.CLOSED_SET",
        cfg.MODEL.DEVICE,
        node.BATCH_SIZE,
        read_dtype(cfg.ANNOTATION.DTYPE, "ANNOTATION.DTYPE"),
    )


@LABELER.register
class ClosedSetLabeler:
    """Names each mask by the class that semantic segmenters see most in it.

    Args:
        segmenters: one or more; the first one's map, with the masks painted over it, is the
            photo's ``semantic_mask``.

    Raises:
        ValueError: if there is no segmenter.
    """

    @configurable
    def __init__(self, segmenters: Sequence[Segmenter]) -> None:
        if not segmenters:
            raise ValueError("a labeller of closed sets needs a segmenter")
        self.segmenters = list(segmenters)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The segmenters of ``cfg.ANNOTATION.CLOSED_SET``; errors as of ``build_segmenters``."""
        return {"segmenters": build_segmenters(cfg)}

    def label(self, photos: Sequence[MaskedPhoto]) -> list[Labels]:
        """Names of all masks of all photos.

        Returns:
            For each mask ``class_name``, None where it has no pixels, and ``class_proposals``: the
            name each segmenter gives, by falling share of the mask's pixels, shares of equal names
            summed. For each photo ``semantic_mask``: a run-length code by class id, as text.

        Raises:
            ValueError: if a mask's code is damaged or not of its photo's size; names the photo.
        """
        masks = [read_masks(photo) for photo in photos]
        images = [photo.image for photo in photos]
        maps = [segmenter.segment(images) for segmenter in self.segmenters]
        return [
            self._labels([vote(of_all[index], here) for of_all in maps])
            for index, here in enumerate(masks)
        ]

    def _labels(self, votes: Sequence[Votes]) -> Labels:
        regions = []
        for index in range(len(votes[0].classes)):
            shares: dict[str, float] = {}
            for segmenter, here in zip(self.segmenters, votes, strict=True):
                winner = here.classes[index]
                if winner is not None:
                    name = segmenter.labels[winner]
                    shares[name] = shares.get(name, 0.0) + here.shares[index]
            proposals = sorted(shares, key=lambda name: -shares[name])
            best = proposals[0] if proposals else None
            regions.append({"class_name": best, "class_proposals": proposals})
        return Labels(regions, {"semantic_mask": encode_semantic_mask(votes[0].class_map)})


def read_masks(photo: MaskedPhoto) -> RunLengthMasks:
    """The masks of a photo.

    Raises:
        ValueError: if a code is damaged or not of the photo's size; names the photo.
    """
    codes = [annotation["segmentation"] for annotation in photo.annotations]
    try:
        return RunLengthMasks.from_coco(codes, photo.image.shape[:2])
    except ValueError as error:
        raise ValueError(f"{photo.name}: {error}") from error
