"""Sine encodings of image grids and of boxes (DETR; DAB-DETR)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TEMPERATURE = 10000.0


def _sin_cos(angles: Tensor, dim: int) -> Tensor:
    """(...) angles -> (..., dim): sine and cosine interleaved, one frequency a pair."""
    exponent = torch.arange(dim // 2, device=angles.device, dtype=torch.float32) * 2 / dim
    phase = angles[..., None] / TEMPERATURE**exponent
    return torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(-2)


def grid_position_encoding(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """Encoding of every cell of a grid, normalised to the grid's extent.

    Args:
        height: rows.
        width: columns.
        dim: channels; half for y, then half for x. A multiple of 4.
        device: where the result lies.

    Returns:
        (height * width, dim) float32, row-major.
    """
    rows = torch.arange(1, height + 1, device=device, dtype=torch.float32)
    columns = torch.arange(1, width + 1, device=device, dtype=torch.float32)
    y = _sin_cos(rows / (height + 1e-6) * 2 * math.pi, dim // 2)
    x = _sin_cos(columns / (width + 1e-6) * 2 * math.pi, dim // 2)
    grid = torch.cat(
        [y[:, None].expand(-1, width, -1), x[None].expand(height, -1, -1)],
        dim=-1,
    )
    return grid.flatten(0, 1)


def box_position_encoding(boxes: Tensor, dim: int) -> Tensor:
    """Encoding of boxes.

    Args:
        boxes: (..., 4) cx, cy, w, h in [0, 1].
        dim: channels of each coordinate; even.

    Returns:
        (..., 4 * dim) float32 in the order y, x, w, h.
    """
    return _sin_cos(boxes[..., [1, 0, 2, 3]] * 2 * math.pi, dim).flatten(-2)
