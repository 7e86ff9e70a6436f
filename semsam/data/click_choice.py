"""The click that stands for a ground-truth mask in evaluation.

The published numbers click on the first maximum of kornia 0.6.4's ``distance_transform``. That is
not a Euclidean transform: waves of one pixel run inwards from the outside of the mask, and a pixel
reached by wave ``i`` (0 first) gets ``floor(1.5 i) - 0.35 log(sum of exp(-d / 0.35))``, the sum
over the neighbours, at distance d = 1 or sqrt(2), that earlier waves reached. (Later versions of
kornia correct the 1.5.) So a value depends on nothing but the wave numbers of a pixel and of its
eight neighbours, and the wave number is the chessboard distance to the outside. Pixels of equal
surroundings tie exactly here, where float32 sums may tell them apart by their last bit.
"""

from __future__ import annotations

import cv2
import numpy as np

_BANDWIDTH = 0.35


def choose_click(mask: np.ndarray) -> tuple[int, int]:
    """The pixel deepest inside a mask, as the original evaluation chooses it.

    Args:
        mask: (H, W) bool.

    Returns:
        x, y of the pixel where :func:`soft_distance_transform` is largest, the first in row-major
        order; (0, 0) for an empty mask.

    Raises:
        ValueError: if the mask is not a bool array of two dimensions.
    """
    waves, left, top = _waves(mask)
    if waves.size == 0:
        return 0, 0
    # A later wave adds at least 1 while the soft part spans 0.42 to 1.4142: only the last can win.
    last = np.flatnonzero(waves == waves.max())
    y, x = divmod(int(last[_soft_part(waves, last).argmax()]), waves.shape[1])
    return x + left, y + top


def soft_distance_transform(mask: np.ndarray) -> np.ndarray:
    """Approximate distance of every mask pixel to the outside; beyond the image is outside.

    Args:
        mask: (H, W) bool.

    Returns:
        (H, W) float32, zero outside the mask.

    Raises:
        ValueError: if the mask is not a bool array of two dimensions.
    """
    waves, left, top = _waves(mask)
    distance = np.zeros(mask.shape, np.float32)
    if waves.size:
        inside = np.flatnonzero(waves)
        ys, xs = np.divmod(inside, waves.shape[1])
        whole = np.floor(1.5 * (waves[ys, xs] - 1))
        distance[ys + top, xs + left] = whole + _soft_part(waves, inside)
    return distance


def _waves(mask: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Chessboard distance to the outside in the mask's bounding box and one pixel around it.

    Returns:
        (h + 2, w + 2) float32, or an empty array for an empty mask, and the x, y of its corner.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"a mask is (H, W) bool, got {mask.shape} {mask.dtype}")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return np.empty((0, 0), np.float32), 0, 0
    top, left = int(rows[0]), int(columns[0])
    inside = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    return cv2.distanceTransform(inside.view(np.uint8), cv2.DIST_C, 3), left - 1, top - 1


def _soft_part(waves: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The part of the distance that comes from the earlier neighbours of (P,) flat positions."""
    flat, width = waves.ravel(), waves.shape[1]
    own = flat[pixels]
    sides, corners = (
        sum((flat[pixels + step] < own).astype(np.int8) for step in steps)
        for steps in ((-width, -1, 1, width), (-width - 1, -width + 1, width - 1, width + 1))
    )
    total = sides * np.exp(-1 / _BANDWIDTH) + corners * np.exp(-np.sqrt(2) / _BANDWIDTH)
    return -_BANDWIDTH * np.log(total)
