"""Large-scale jitter with the arithmetic of SCA's released training, to compare with it.

The geometry, and the order of its draws, is that of ``transforms.LargeScaleJitter``; CaptionMapper
moves boxes as real numbers and resizes the photo once, with PIL. SCA's code ("Segment and Caption
Anything", the ``lsj-*`` configurations) does otherwise: the normalised photo is resized as real
numbers without an antialiasing filter, padded with the mean colour and cut down to uint8, and boxes
lose their fractions at every step. What is here does the same; the parity tests hold it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional

from semsam.data.transforms import Geometry, have_area

#: Of ImageNet, RGB, for values in [0, 1].
_MEAN = np.array([0.485, 0.456, 0.406])
_STD = np.array([0.229, 0.224, 0.225])


def jitter_normalized(image: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.float64]:
    """Normalise, flip, resize, crop and pad a photo.

    Args:
        image: (h, w, 3) RGB of the geometry's source size.
        geometry: from ``LargeScaleJitter``.

    Returns:
        (H, W, 3) of the geometry's output size, normalised; padding is 0.
    """
    pixels = (image / 255.0 - _MEAN) / _STD
    if geometry.flip:
        pixels = pixels[:, ::-1]
    planes = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]
    resized = functional.interpolate(planes, geometry.resized, mode="bilinear", align_corners=False)
    (top, left), (height, width) = geometry.offset, geometry.content
    padded = np.zeros((*geometry.output, 3))
    padded[:height, :width] = (
        resized[0, :, top : top + height, left : left + width].permute(1, 2, 0).numpy()
    )
    return padded


def denormalize(pixels: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(H, W, 3) normalised pixels to RGB, fractions cut off."""
    return ((pixels * _STD + _MEAN) * 255.0).astype(np.uint8)


def jitter_boxes(boxes: ArrayLike, geometry: Geometry) -> NDArray[np.int64]:
    """Move boxes, cutting fractions off after each step; they may leave the output.

    Args:
        boxes: (N, 4) XYXY pixels of the source.
        geometry: from ``LargeScaleJitter``.

    Returns:
        (N, 4) XYXY pixels of the output.
    """
    corners = np.asarray(boxes).astype(np.int64).reshape(-1, 2, 2)
    if geometry.flip:
        corners[..., 0] = geometry.source[1] - corners[..., 0]
    for axis, side in ((0, 1), (1, 0)):
        factor = geometry.resized[side] / geometry.source[side]
        corners[..., axis] = (corners[..., axis] * factor).astype(np.int64)
    corners -= np.array(geometry.offset[::-1])
    return np.hstack([corners.min(axis=1), corners.max(axis=1)])


def keep_boxes(
    boxes: NDArray[np.int64], size: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut boxes at the edges of (height, width) and drop those that have no area.

    Returns:
        (M, 4) boxes, and their (M,) places among those that came in.
    """
    clipped = np.clip(boxes, 0, np.array([size[1], size[0]] * 2))
    kept = np.flatnonzero(have_area(clipped))
    return clipped[kept], kept
