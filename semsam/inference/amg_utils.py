"""Grids, crops and mask clean-up of the automatic mask generator, on plain arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask
from torchvision.ops import batched_nms

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")


def point_grid(points_per_side: int) -> np.ndarray:
    """(n * n, 2) x, y in (0, 1): centres of n x n equal cells, x fastest."""
    centres = (np.arange(points_per_side) + 0.5) / points_per_side
    x, y = np.meshgrid(centres, centres)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def crop_boxes(
    image_size: tuple[int, int], num_layers: int, overlap_ratio: float
) -> list[tuple[tuple[int, int, int, int], int]]:
    """The whole image and, for layer i from 1 on, 2^i x 2^i overlapping crops of it.

    Args:
        image_size: (H, W) pixels.
        num_layers: layers beside the whole image.
        overlap_ratio: overlap in the first layer as a share of the shorter side; layer i has
            2^(i-1) times less.

    Returns:
        (XYXY box in pixels, layer) pairs, the whole image first.
    """
    height, width = image_size
    boxes = [((0, 0, width, height), 0)]
    for layer in range(1, num_layers + 1):
        per_side = 2**layer
        overlap = int(overlap_ratio * min(height, width) * 2 / per_side)
        crop_w, starts_x = _spread(width, per_side, overlap)
        crop_h, starts_y = _spread(height, per_side, overlap)
        for x, y in product(starts_x, starts_y):
            boxes.append(((x, y, min(x + crop_w, width), min(y + crop_h, height)), layer))
    return boxes


def _spread(length: int, number: int, overlap: int) -> tuple[int, list[int]]:
    """Length and starts of ``number`` pieces of a line that overlap by ``overlap``."""
    piece = math.ceil((overlap * (number - 1) + length) / number)
    return piece, [(piece - overlap) * i for i in range(number)]


def cut_by_crop(
    box: tuple[float, float, float, float],
    crop_box: tuple[int, int, int, int],
    image_size: tuple[int, int],
    tolerance: float = 20.0,
) -> bool:
    """Whether a box ends at an edge of its crop which is not an edge of the image.

    Args:
        box: XYXY in image pixels.
        crop_box: XYXY in image pixels.
        image_size: (H, W).
        tolerance: pixels within which an edge counts as reached.
    """
    height, width = image_size
    return any(
        abs(side - crop) <= tolerance and abs(side - image) > tolerance
        for side, crop, image in zip(box, crop_box, (0, 0, width, height), strict=True)
    )


def non_maximum_suppression(
    boxes: Sequence[Sequence[float]],
    scores: Sequence[float],
    threshold: float,
    groups: Sequence[int] | None = None,
) -> list[int]:
    """Indices of boxes that no better box overlaps too much, best first.

    Args:
        boxes: N of XYXY.
        scores: N.
        threshold: IoU above which the worse of two boxes goes.
        groups: N numbers; boxes of one group alone compete. None: all do.
    """
    if not boxes:
        return []
    keep = batched_nms(
        torch.tensor(boxes, dtype=torch.float32),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(groups or [0] * len(boxes), dtype=torch.long),
        threshold,
    )
    return keep.tolist()


def outer_boxes(records: Sequence[dict[str, Any]]) -> np.ndarray:
    """(N, 4) float32 XYXY of records: from the first pixel's edge to behind the last pixel."""
    x, y, w, h = np.array([r["bbox"] for r in records], dtype=np.float32).reshape(-1, 4).T
    return np.stack([x, y, x + w + 1, y + h + 1], axis=1)


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """XYXY indices of the first and the last pixel of an (H, W) bool mask; zeros if empty.

    As in segment-anything, x1 and y1 are the last pixel itself: the box of one pixel has no width.
    """
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return (x, y, x + width - 1, y + height - 1) if width else (0, 0, 0, 0)


def cut_logits(
    logits: np.ndarray, stability_offset: float, threshold: float = 0.0
) -> tuple[np.ndarray, float]:
    """A mask and its stability under a shift of the threshold.

    Args:
        logits: (H, W) float32.
        stability_offset: distance of the two shifted cuts from ``threshold``.
        threshold: a pixel above it belongs to the mask.

    Returns:
        (H, W) bool, and the IoU of the masks cut at ``threshold + offset`` and ``threshold -
        offset``; NaN where both are empty.
    """
    mask = np.empty(logits.shape, dtype=bool)
    inner = np.count_nonzero(np.greater(logits, threshold + stability_offset, out=mask))
    outer = np.count_nonzero(np.greater(logits, threshold - stability_offset, out=mask))
    # Divided in single precision, as in the original, so that a score at the threshold agrees.
    stability = float(np.float32(inner) / np.float32(outer)) if outer else math.nan
    return np.greater(logits, threshold, out=mask), stability


def fill_small_holes(mask: np.ndarray, min_area: int) -> tuple[np.ndarray, bool]:
    """Add to an (H, W) bool mask every 8-connected background region below ``min_area`` pixels.

    Returns:
        The mask, a new one if it changed, and whether it did.
    """
    return _relabel(mask, min_area, holes=True)


def drop_small_islands(mask: np.ndarray, min_area: int) -> tuple[np.ndarray, bool]:
    """Take from an (H, W) bool mask every 8-connected region below ``min_area`` pixels.

    Where all regions are small the largest stays.

    Returns:
        The mask, a new one if it changed, and whether it did.
    """
    return _relabel(mask, min_area, holes=False)


def _relabel(mask: np.ndarray, min_area: int, holes: bool) -> tuple[np.ndarray, bool]:
    window = _window(mask, min_area if holes else 0)
    if window is None:
        return mask, False
    part = mask[window]
    regions = (part ^ holes).view(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(regions, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    small = areas < min_area
    if not small.any():
        return mask, False
    belongs = np.empty(count, dtype=bool)
    belongs[0] = holes
    belongs[1:] = small if holes else ~small
    if not belongs.any():
        belongs[1 + areas.argmax()] = True
    result = mask.copy()
    result[window] = belongs[labels]
    return result, True


def _window(mask: np.ndarray, min_area: int) -> tuple[slice, slice] | None:
    """The mask's bounding box, with a margin that alone is as large as the smallest true hole.

    Background that leaves the window is therefore never taken for a small hole.
    """
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width == 0:
        # Without a mask the background can only be a hole if the whole image is small.
        return (slice(None), slice(None)) if mask.size < min_area else None
    margin = -(-min_area // min(width, height))
    # OpenCV numbers regions by blocks of 2 x 2 pixels, and of equal regions the first one stays:
    # even corners leave the blocks, and so the choice, as in the whole image.
    top, left = (max(0, start - margin) // 2 * 2 for start in (y, x))
    return slice(top, y + height + margin), slice(left, x + width + margin)


def encode_mask(mask: np.ndarray, output_mode: str) -> np.ndarray | dict[str, Any]:
    """An (H, W) bool mask in one of ``OUTPUT_MODES``: itself, or COCO's run lengths."""
    if output_mode == "binary_mask":
        return mask
    columns = np.asfortranarray(mask)
    if output_mode == "coco_rle":
        rle = coco_mask.encode(columns.view(np.uint8))
        return {"size": list(mask.shape), "counts": rle["counts"].decode()}
    flat = columns.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    # Runs alternate from background: a mask that starts with foreground has a first run of zero.
    start = [0, 0] if flat.size and flat[0] else [0]
    counts = np.diff([*start, *changes.tolist(), flat.size])
    return {"size": list(mask.shape), "counts": counts.tolist()}


def process_multi_mask(
    masks: np.ndarray,
    scores: np.ndarray,
    thresh: float = 0.5,
    hole_scale: int = 100,
    island_scale: int = 100,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keep the distinct good masks of one prompt, cleaned, as the original's demo showed them.

    A mask goes if its score, rounded to two decimals, is below ``thresh`` or if its IoU with a
    better one exceeds 0.95; where all would go the last one stays.

    Args:
        masks: (K, H, W) bool.
        scores: (K,).
        thresh: least score.
        hole_scale: holes with fewer pixels are filled.
        island_scale: islands with fewer pixels are dropped.

    Returns:
        masks: (M, H, W) bool, best first.
        scores: (M,) rounded to two decimals.
        by_area: (M,) indices that sort them from small to large, by area before cleaning.

    Raises:
        ValueError: if shapes do not fit.
    """
    if masks.ndim != 3 or masks.dtype != bool or np.shape(scores) != masks.shape[:1]:
        raise ValueError(
            f"masks are (K, H, W) bool with K scores, got {masks.shape} {masks.dtype} and "
            f"{np.shape(scores)}"
        )
    kept: list[int] = []
    order = np.argsort(-np.asarray(scores), kind="stable")
    rounded = [round(float(score), 2) for score in scores]
    for index in order:
        good = rounded[index] >= thresh
        new = all(_mask_iou(masks[index], masks[other]) <= 0.95 for other in kept)
        if (good and new) or (index == order[-1] and not kept):
            kept.append(int(index))
    cleaned = []
    for mask in masks[kept]:
        filled, _ = fill_small_holes(mask, hole_scale)
        cleaned.append(drop_small_islands(filled, island_scale)[0])
    by_area = np.argsort([masks[index].sum() for index in kept], kind="stable")
    result = np.stack(cleaned) if cleaned else masks[:0]
    return result, np.array([rounded[index] for index in kept]), by_area


def _mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 0.0
