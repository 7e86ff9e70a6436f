"""Images of different sizes in one tensor."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


class ImageList:
    """Images padded at the bottom and the right to one size.

    Attributes:
        tensor: (B, C, H, W), padded.
        image_sizes: (h, w) of each image before padding.
    """

    def __init__(self, tensor: Tensor, image_sizes: list[tuple[int, int]]) -> None:
        self.tensor = tensor
        self.image_sizes = image_sizes

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, index: int) -> Tensor:
        """(C, h, w): one image without its padding."""
        height, width = self.image_sizes[index]
        return self.tensor[index, ..., :height, :width]

    @property
    def padded_size(self) -> tuple[int, int]:
        """(H, W) of the padded frame."""
        return self.tensor.shape[-2], self.tensor.shape[-1]

    @property
    def device(self) -> torch.device:
        """Where the tensor lies."""
        return self.tensor.device

    def to(self, *args: object, **kwargs: object) -> ImageList:
        """The same images on a device or in a dtype."""
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)  # type: ignore[call-overload]

    @staticmethod
    def from_tensors(
        tensors: list[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        square_size: int = 0,
    ) -> ImageList:
        """Pad images to the largest height and width of the batch.

        Args:
            tensors: (C, h, w) each.
            size_divisibility: the padded height and width are multiples of this; 0 for any.
            pad_value: what the padding holds.
            square_size: pad to this height and width at least (SAM's 1024); 0 for no square.

        Raises:
            ValueError: if there is no image, or an image is larger than ``square_size``.
        """
        if not tensors:
            raise ValueError("a batch needs at least one image")
        sizes = [(int(t.shape[-2]), int(t.shape[-1])) for t in tensors]
        height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
        if square_size:
            if max(height, width) > square_size:
                raise ValueError(f"image of {height}x{width} is larger than {square_size} pixels")
            height = width = square_size
        if size_divisibility > 1:
            height = -(-height // size_divisibility) * size_divisibility
            width = -(-width // size_divisibility) * size_divisibility
        padded = [
            F.pad(t, (0, width - w, 0, height - h), value=pad_value)
            for t, (h, w) in zip(tensors, sizes, strict=True)
        ]
        return ImageList(torch.stack(padded), sizes)
