"""Boxes: XYXY in pixels unless a name says otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def box_cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) centre x, centre y, width, height -> x0, y0, x1, y1, in the same units."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def box_xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) x0, y0, x1, y1 -> centre x, centre y, width, height, in the same units."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def masks_to_boxes(masks: Tensor) -> Tensor:
    """Tightest boxes around masks.

    Args:
        masks: (N, H, W) bool.

    Returns:
        (N, 4) float32 XYXY pixels; the right and bottom edge lie after the last pixel
        (``x1 = max_x + 1``). An empty mask gives zeros.
    """
    columns, rows = masks.any(dim=1), masks.any(dim=2)
    x0, x1 = _extent(columns)
    y0, y1 = _extent(rows)
    return torch.stack([x0, y0, x1, y1], dim=1).float()


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """First and one-past-last True of each row of (N, L); 0, 0 where there is none."""
    number, length = occupied.shape
    if length == 0:
        zeros = torch.zeros(number, dtype=torch.long, device=occupied.device)
        return zeros, zeros
    flags = occupied.to(torch.uint8)
    first = flags.argmax(dim=1)
    last = length - flags.flip(1).argmax(dim=1)
    some = occupied.any(dim=1)
    return first * some, last * some


class Boxes:
    """N boxes, XYXY in pixels; detectron2's class of the same name, the part of it that is used.

    Args:
        tensor: (N, 4), anything that ``torch.as_tensor`` takes; kept as float32.

    Raises:
        ValueError: if the last dimension is not 4.
    """

    def __init__(self, tensor: Tensor) -> None:
        tensor = torch.as_tensor(tensor, dtype=torch.float32)
        if tensor.numel() == 0:
            tensor = tensor.reshape(-1, 4)
        if tensor.dim() != 2 or tensor.shape[-1] != 4:
            raise ValueError(f"boxes must be (N, 4), got {tuple(tensor.shape)}")
        self.tensor = tensor

    def to(self, device: torch.device | str) -> Boxes:
        """The same boxes on a device."""
        return Boxes(self.tensor.to(device))

    def area(self) -> Tensor:
        """(N,) areas in square pixels."""
        size = self.tensor[:, 2:] - self.tensor[:, :2]
        return size[:, 0] * size[:, 1]

    def __getitem__(self, item: int | slice | Tensor) -> Boxes:
        if isinstance(item, int):
            return Boxes(self.tensor[item].view(1, -1))
        return Boxes(self.tensor[item])

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensor)

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"

    @staticmethod
    def cat(boxes_list: list[Boxes]) -> Boxes:
        """Concatenate; an empty list gives no boxes."""
        if not boxes_list:
            return Boxes(torch.empty(0, 4))
        return Boxes(torch.cat([b.tensor for b in boxes_list]))

    @property
    def device(self) -> torch.device:
        """Where the tensor lies."""
        return self.tensor.device
