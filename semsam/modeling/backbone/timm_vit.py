"""Any plain timm ViT in the place of SAM's image encoder, by its timm name."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from semsam.config import CfgNode, configurable
from semsam.modeling.build import BACKBONE

from .backbone import Backbone, ShapeSpec
from .sam_vit import sam_neck
from .timm_backbone import create_timm


@BACKBONE.register
class TimmViT(Backbone):
    """A plain ViT and SAM's neck, for SAM's decoder (SCA, table 4: other image encoders).

    Images are padded to ``image_size`` as for SAM, then resized to the one size that the network
    takes; its map is resized to the one that the decoder takes. Both resizes are nearest.

    Args:
        name: as in ``timm.list_models()``, for example ``"vit_base_patch16_clip_224.openai"``.
        pretrained: load timm's weights (a download at the first use).
        image_size: side of the padded input, in pixels.
        patch_size: stride of the output.
        out_channels: channels of the output.

    Raises:
        ValueError: if timm has no such network, or it is no plain ViT.
    """

    @configurable
    def __init__(
        self,
        *,
        name: str,
        pretrained: bool = False,
        image_size: int = 1024,
        patch_size: int = 16,
        out_channels: int = 256,
    ) -> None:
        super().__init__()
        net: Any = create_timm(name, pretrained=pretrained, num_classes=0)
        if not hasattr(net, "patch_embed") or not hasattr(net, "num_prefix_tokens"):
            raise ValueError(f"'{name}' is no plain ViT; use TimmBackbone for networks with levels")
        self.net = net
        self.neck = sam_neck(net.embed_dim, out_channels)
        self.image_size = image_size
        self._cells = image_size // patch_size
        self._shape = ShapeSpec(channels=out_channels, stride=patch_size)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Named arguments from ``MODEL.TIMM``, ``MODEL.SAM`` and ``MODEL.DECODER.HIDDEN_DIM``."""
        return {
            "name": cfg.MODEL.TIMM.NAME,
            "pretrained": cfg.MODEL.TIMM.PRETRAINED,
            "image_size": cfg.MODEL.SAM.IMAGE_SIZE,
            "patch_size": cfg.MODEL.SAM.PATCH_SIZE,
            "out_channels": cfg.MODEL.DECODER.HIDDEN_DIM,
        }

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, S, S), S the image size -> ``image_embedding`` (B, C, S / patch, S / patch)."""
        net: Any = self.net
        tokens = net.forward_features(F.interpolate(images, net.patch_embed.img_size))
        tokens = tokens[:, net.num_prefix_tokens :]
        embedding = self.neck(tokens.unflatten(1, net.patch_embed.grid_size))
        return {"image_embedding": F.interpolate(embedding, (self._cells, self._cells))}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of ``image_embedding``."""
        return {"image_embedding": self._shape}

    @property
    def padding_constraints(self) -> dict[str, int]:
        """The frame that the decoder's position encoding covers."""
        return {"square_size": self.image_size}
