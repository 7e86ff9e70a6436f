"""Masks take the class that a semantic segmenter sees most in them (Semantic-Segment-Anything).

Chen, Yang and Zhang, "Semantic Segment Anything", 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semsam.data.run_length import RunLengthMasks


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
