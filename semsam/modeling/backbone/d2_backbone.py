"""detectron2's backbones, by the names they have there; detectron2 is imported when one is built.

detectron2 reads its own configuration, so its keys (``RESNETS.DEPTH``, ``FPN.OUT_CHANNELS``, ...)
are given through ``MODEL.DETECTRON2.CONFIG_FILE`` and ``MODEL.DETECTRON2.OPTS``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from semsam.config import CfgNode, configurable
from semsam.modeling.build import BACKBONE

from .backbone import Backbone, ShapeSpec


@BACKBONE.register
class D2Backbone(Backbone):
    """A backbone built by detectron2 from ``MODEL.DETECTRON2``, whatever its name there.

    Args:
        net: a ``detectron2.modeling.Backbone``.
        bgr: whether the network was trained on BGR; semsam's images are RGB. The mean and standard
            deviation of such weights go to ``MODEL.PIXEL_MEAN`` and ``MODEL.PIXEL_STD`` in RGB
            order.
    """

    @configurable
    def __init__(self, net: nn.Module, bgr: bool = False) -> None:
        super().__init__()
        self.net = net
        self.bgr = bgr

    @classmethod
    def from_config(cls, cfg: CfgNode, name: str = "") -> dict[str, Any]:
        """Build detectron2's backbone.

        Args:
            cfg: semsam's configuration.
            name: in detectron2's registry; "" for the one that its configuration names.

        Raises:
            ImportError: if detectron2 is not installed.
            ValueError: if activations are to be recomputed, which these backbones cannot do.
        """
        if cfg.MODEL.ACTIVATION_CHECKPOINTING:
            raise ValueError("detectron2's backbones cannot recompute activations")
        d2_cfg = _detectron2_cfg(cfg.MODEL.DETECTRON2)
        if name:
            d2_cfg.MODEL.BACKBONE.NAME = name
        from detectron2.modeling import build_backbone

        return {"net": build_backbone(d2_cfg), "bgr": d2_cfg.INPUT.FORMAT == "BGR"}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) RGB -> detectron2's maps by its names (``res2`` .. or ``p2`` ..)."""
        return self.net(images.flip(1) if self.bgr else images)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and strides of detectron2's maps."""
        return {
            name: ShapeSpec(channels=spec.channels, stride=spec.stride)
            for name, spec in self.net.output_shape().items()
        }

    @property
    def padding_constraints(self) -> dict[str, int]:
        """What the network asks for; whole cells at stride 32 where it asks for nothing."""
        net: Any = self.net
        return {"size_divisibility": net.size_divisibility or 32, **net.padding_constraints}


@BACKBONE.register
def build_resnet_backbone(cfg: CfgNode) -> D2Backbone:
    """detectron2's ResNet, maps ``res2`` .. ``res5``."""
    return D2Backbone(cfg, name="build_resnet_backbone")


@BACKBONE.register
def build_resnet_fpn_backbone(cfg: CfgNode) -> D2Backbone:
    """detectron2's ResNet with a feature pyramid, maps ``p2`` .. ``p6``."""
    return D2Backbone(cfg, name="build_resnet_fpn_backbone")


def _detectron2_cfg(node: CfgNode) -> Any:
    try:
        from detectron2.config import get_cfg
    except ImportError as error:
        raise ImportError(
            "this backbone is detectron2's: build it from source, "
            "github.com/facebookresearch/detectron2 (its uploads on PyPI are old)"
        ) from error
    d2_cfg = get_cfg()
    # A segmentor reads all maps; detectron2's default is the last one alone.
    d2_cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    d2_cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    if Path(node.CONFIG_FILE).is_file():
        d2_cfg.merge_from_file(node.CONFIG_FILE)
    elif node.CONFIG_FILE:
        from detectron2 import model_zoo

        d2_cfg.merge_from_file(model_zoo.get_config_file(node.CONFIG_FILE))
    d2_cfg.merge_from_list(list(node.OPTS))
    return d2_cfg
