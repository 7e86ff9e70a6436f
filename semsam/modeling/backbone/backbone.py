"""What every image encoder promises."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class ShapeSpec:
    """Channels and stride (in input pixels) of a feature map."""

    channels: int
    stride: int


class Backbone(nn.Module, metaclass=ABCMeta):
    """An image encoder that gives feature maps of several strides by name."""

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) normalised images -> name -> (B, C, h, w)."""

    @abstractmethod
    def output_shape(self) -> dict[str, ShapeSpec]:
        """Name -> channels and stride, finest map first."""

    @property
    def padding_constraints(self) -> dict[str, int]:
        """``size_divisibility`` and, for fixed-size encoders, ``square_size``; empty for none."""
        return {}
