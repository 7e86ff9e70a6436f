"""Any timm network that has maps at strides 4, 8, 16 and 32, by its timm name."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from semsam.config import CfgNode, configurable
from semsam.modeling.build import BACKBONE
from semsam.utils.registry import nearest_name

from .backbone import Backbone, ShapeSpec

_STRIDES = (4, 8, 16, 32)


@BACKBONE.register
class TimmBackbone(Backbone):
    """A timm network with maps ``res2`` .. ``res5`` at strides 4, 8, 16, 32.

    Pretrained weights expect the mean and standard deviation they were trained with: set
    ``MODEL.PIXEL_MEAN`` and ``MODEL.PIXEL_STD`` where they are not ImageNet's.

    Args:
        name: as in ``timm.list_models()``, for example ``"convnext_tiny.fb_in1k"``.
        pretrained: load timm's weights (a download at the first use).
        activation_checkpointing: recompute blocks in the backward pass to save memory.

    Raises:
        ValueError: if timm has no such network, it lacks one of the strides (plain ViTs do), or it
            cannot recompute activations.
    """

    @configurable
    def __init__(
        self, *, name: str, pretrained: bool = False, activation_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.net = _create_pyramid(name, pretrained)
        reductions = self.net.feature_info.reduction()
        if not set(_STRIDES) <= set(reductions):
            raise ValueError(
                f"'{name}' has maps at strides {reductions}; semsam needs {list(_STRIDES)}: "
                "choose a network with a feature pyramid (ResNet, ConvNeXt, Swin, ...)"
            )
        if activation_checkpointing:
            if not hasattr(self.net, "set_grad_checkpointing"):
                raise ValueError(f"'{name}' cannot recompute activations")
            self.net.set_grad_checkpointing(True)
        self._channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
        self._indices = [reductions.index(stride) for stride in _STRIDES]
        channels = self.net.feature_info.channels()
        self._shapes = {
            f"res{i + 2}": ShapeSpec(channels=channels[index], stride=stride)
            for i, (index, stride) in enumerate(zip(self._indices, _STRIDES, strict=True))
        }

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Named arguments from ``MODEL.TIMM``."""
        return {
            "name": cfg.MODEL.TIMM.NAME,
            "pretrained": cfg.MODEL.TIMM.PRETRAINED,
            "activation_checkpointing": cfg.MODEL.ACTIVATION_CHECKPOINTING,
        }

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W), H and W multiples of 32 -> ``res2`` .. ``res5``."""
        maps = self.net(images)
        picked = (maps[index] for index in self._indices)
        if self._channels_last:
            picked = (x.permute(0, 3, 1, 2) for x in picked)
        return dict(zip(self._shapes, picked, strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and strides of ``res2`` .. ``res5``."""
        return self._shapes

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Whole cells at the coarsest map."""
        return {"size_divisibility": max(_STRIDES)}


def create_timm(name: str, **arguments: Any) -> nn.Module:
    """``timm.create_model``; ValueError with the nearest name where timm has no such network."""
    import timm  # takes seconds, and only models with such a backbone need it

    if not timm.is_model(name):
        near = nearest_name(name, timm.list_models())
        raise ValueError(f"timm has no '{name}'{near}; timm.list_models() gives all names")
    return timm.create_model(name, **arguments)


def _create_pyramid(name: str, pretrained: bool) -> nn.Module:
    try:
        # Networks with attention windows otherwise take images of one size only.
        return create_timm(name, pretrained=pretrained, features_only=True, strict_img_size=False)
    except TypeError:
        return create_timm(name, pretrained=pretrained, features_only=True)
