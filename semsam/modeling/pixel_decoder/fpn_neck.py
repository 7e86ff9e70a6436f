"""One map out of a pyramid, for decoders that read a single image embedding."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from semsam.config import CfgNode, configurable
from semsam.modeling.backbone import ShapeSpec
from semsam.modeling.build import PIXEL_DECODER


@PIXEL_DECODER.register
class FpnNeck(nn.Module):
    """Any backbone with levels in front of SAM's decoder: levels, projected, summed at one stride.

    Top-down sum of a feature pyramid (Lin et al. 2017), down to the stride that is wanted; finer
    levels are not used.

    Args:
        shapes: of the backbone's maps.
        stride: of the embedding; one of the maps has it.
        dim: channels of the embedding.

    Raises:
        ValueError: if no map has the stride.
    """

    @configurable
    def __init__(self, shapes: dict[str, ShapeSpec], *, stride: int = 16, dim: int = 256) -> None:
        super().__init__()
        strides = [shape.stride for shape in shapes.values()]
        if stride not in strides:
            raise ValueError(
                f"MODEL.SAM.PATCH_SIZE is {stride}; the backbone's maps have strides {strides}"
            )
        kept = {name: shape for name, shape in shapes.items() if shape.stride >= stride}
        self.names = sorted(kept, key=lambda name: -kept[name].stride)
        self.lateral = nn.ModuleDict({n: nn.Conv2d(kept[n].channels, dim, 1) for n in self.names})
        self.output = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.GroupNorm(1, dim))

    @classmethod
    def from_config(cls, cfg: CfgNode, shapes: dict[str, ShapeSpec]) -> dict[str, Any]:
        """The stride is ``MODEL.SAM.PATCH_SIZE``, the channels ``MODEL.DECODER.HIDDEN_DIM``."""
        return {
            "shapes": shapes,
            "stride": cfg.MODEL.SAM.PATCH_SIZE,
            "dim": cfg.MODEL.DECODER.HIDDEN_DIM,
        }

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Maps by name -> ``image_embedding`` (B, dim, h, w) at the stride."""
        total: Tensor | None = None
        for name in self.names:
            level = self.lateral[name](features[name])
            if total is not None:
                level = level + F.interpolate(total, level.shape[-2:])
            total = level
        assert total is not None
        return {"image_embedding": self.output(total)}
