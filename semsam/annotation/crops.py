"""Patches of a photo around its masks, cut as Semantic-Segment-Anything cuts them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from semsam.data.run_length import RunLengthMasks

from .records import MaskedPhoto

#: Growth of a mask's box for the captioner and CLIPSeg, and for CLIP.
LARGE = 1.6
SMALL = 1.2


def patch_boxes(boxes: ArrayLike, image_size: tuple[int, int], scale: float) -> NDArray[np.int64]:
    """Boxes grown about their centres, as ``mmcv.imcrop`` does.

    Sides grow in float64; corners are then truncated towards zero and clipped to the photo.

    Args:
        boxes: (N, 4) x, y, width, height in pixels; a box reaches from pixel x to pixel x + width.
        image_size: height and width of the photo.
        scale: factor on the sides.

    Returns:
        (N, 4) x1, y1, x2, y2, the first and the last pixels of the patches; no patch is empty.

    Raises:
        ValueError: if a box is not four finite numbers, or has a negative side.
    """
    given = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    wrong = ~np.isfinite(given).all(1) | (given[:, 2:] < 0).any(1)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"bbox {row} is x, y, width >= 0, height >= 0, got {given[row].tolist()}")
    corners = np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], axis=1)
    growth = (corners[:, 2:] - corners[:, :2] + 1) * (scale - 1) * 0.5
    corners = corners + np.concatenate([-growth, growth], axis=1)
    height, width = image_size
    last = np.array([width, height, width, height]) - 1
    # Clipped before the conversion too: what is far outside would not fit an integer.
    return np.clip(corners, -1, last + 1).astype(np.int64).clip(0, last)


def photo_boxes(photo: MaskedPhoto, scale: float) -> NDArray[np.int64]:
    """(N, 4) patches around a photo's masks, as :func:`patch_boxes` gives them.

    Raises:
        ValueError: if an annotation has no ``bbox`` of four numbers; names the photo and the mask.
    """
    boxes = []
    for index, annotation in enumerate(photo.annotations):
        box = annotation.get("bbox")
        if not isinstance(box, (list, tuple, np.ndarray)) or len(box) != 4:
            raise ValueError(f"{photo.name}: mask {index} has no bbox of four numbers, but {box!r}")
        boxes.append(box)
    try:
        return patch_boxes(boxes, photo.image.shape[:2], scale)
    except ValueError as error:
        raise ValueError(f"{photo.name}: {error}") from None


def image_tensor(image: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(3, H, W) uint8 of an (H, W, 3) photo, on the device."""
    # torch takes neither reversed channels nor what PIL has marked as read-only.
    owned = np.require(image, requirements=["C", "W"])
    return torch.from_numpy(owned).to(device).permute(2, 0, 1)


def cut(image: Tensor | NDArray[Any], boxes: NDArray[np.int64]) -> list[Any]:
    """Views of patches.

    Args:
        image: (..., H, W) tensor or array.
        boxes: (N, 4) as :func:`patch_boxes` gives them.

    Returns:
        N views (..., h, w).
    """
    return [image[..., y1 : y2 + 1, x1 : x2 + 1] for x1, y1, x2, y2 in boxes.tolist()]


def mask_in_patch(masks: RunLengthMasks, index: int, box: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(h, w) part of a mask that lies in a patch.

    Args:
        masks: of the photo.
        index: which of them.
        box: (4,) the patch, as :func:`patch_boxes` gives it.
    """
    x1, y1, x2, y2 = box.tolist()
    found = np.zeros((y2 - y1 + 1, x2 - x1 + 1), dtype=bool)
    x, y, columns = masks.window(index)
    left, top = max(x, x1), max(y, y1)
    right, bottom = min(x + columns.shape[0], x2 + 1), min(y + columns.shape[1], y2 + 1)
    if left < right and top < bottom:
        inside = columns[left - x : right - x, top - y : bottom - y].T
        found[top - y1 : bottom - y1, left - x1 : right - x1] = inside
    return found
