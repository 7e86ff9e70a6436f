"""Bilinear samples of maps and of binary masks at points."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def point_sample(maps: Tensor, points: Tensor) -> Tensor:
    """Sample maps bilinearly at points.

    Args:
        maps: (N, C, H, W) logits or features; half precision is sampled in float32.
        points: (N, P, 2) x, y in [0, 1] of the map's extent; (0, 0) is the top-left corner
            of the top-left pixel.

    Returns:
        (N, C, P) samples; points outside the extent read zero.

    Raises:
        ValueError: if N differs between maps and points.
    """
    if len(maps) != len(points):
        raise ValueError(f"{len(maps)} maps, but points for {len(points)}; give points for each")
    if len(maps) == 0:
        # grid_sample takes no empty batch; the product stays connected to the graph.
        return maps.new_zeros(0, maps.shape[1], points.shape[1]) * maps.sum()
    grid = points.mul(2).sub_(1).unsqueeze(1)
    return F.grid_sample(maps.to(grid.dtype), grid, align_corners=False).squeeze(2)


def sample_masks(
    masks: Tensor, index: Tensor, points: Tensor, frame_size: tuple[int, int]
) -> Tensor:
    """Sample binary masks bilinearly where they lie, without a float copy for each use.

    Equals ``point_sample`` of the masks as floats, padded with zeros to the frame.

    Args:
        masks: (M, h, w) bool; they fill the top-left corner of the frame.
        index: (N,) int64, the mask that each row of points samples.
        points: (N, P, 2) x, y in [0, 1] of the frame.
        frame_size: (H, W) of the frame in pixels of the masks.

    Returns:
        (N, P) float32 in [0, 1].

    Raises:
        ValueError: if N differs between index and points.
    """
    if len(index) != len(points):
        raise ValueError(f"{len(index)} mask indices, but points for {len(points)}")
    height, width = masks.shape[-2:]
    x, x_weights = _taps(points[..., 0], frame_size[1], width)
    y, y_weights = _taps(points[..., 1], frame_size[0], height)
    offsets = index[:, None] * (height * width)
    flat = masks.reshape(-1)
    total = torch.zeros(points.shape[:2], device=points.device)
    for row, y_weight in zip(y, y_weights, strict=True):
        row = offsets + row * width
        across = torch.zeros_like(total)
        for column, x_weight in zip(x, x_weights, strict=True):
            # index_select is several times faster on a CPU than an index of two dimensions.
            taken = flat.index_select(0, (row + column).flatten()).view_as(total)
            across.addcmul_(taken, x_weight)
        total.addcmul_(across, y_weight)
    return total


def _taps(
    coordinates: Tensor, extent: int, length: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Positions of the two pixels next to each point, and their weights: zero outside the masks."""
    pixel = (coordinates.float() * extent).sub_(0.5)
    floor = pixel.floor()
    fraction = pixel - floor
    low = floor.long()
    high = low + 1
    low_weight = (1 - fraction) * ((low >= 0) & (low < length))
    high_weight = fraction * ((high >= 0) & (high < length))
    return (low.clamp_(0, length - 1), high.clamp_(0, length - 1)), (low_weight, high_weight)
