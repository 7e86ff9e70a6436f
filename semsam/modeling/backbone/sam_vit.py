"""SAM's image encoder: a plain ViT with windows, and a neck of two convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from semsam.config import CfgNode, configurable
from semsam.modeling.build import BACKBONE

from .backbone import Backbone, ShapeSpec

#: Rows of queries at a time: two rows of 64 cells with scores for 4,096 cells are 2 MB.
_ROWS = 2


def sam_neck(channels: int, out_channels: int) -> nn.Module:
    """Two convolutions and norms: (B, h, w, channels) -> (B, out_channels, h, w)."""
    from transformers.models.sam.configuration_sam import SamVisionConfig
    from transformers.models.sam.modeling_sam import SamVisionNeck

    return SamVisionNeck(SamVisionConfig(hidden_size=channels, output_channels=out_channels))


def _attention_by_rows(config: Any, attention: Any) -> nn.Module:
    """Attention to the whole image, a few rows of one head's queries at a time without gradients.

    The position bias alone has (heads, cells, cells) entries, 0.8 GB for ViT-B at 1024 pixels; of a
    few rows of a head, everything stays in the cache.
    """
    from transformers.models.sam.modeling_sam import SamVisionSdpaAttention

    class AttentionByRows(SamVisionSdpaAttention):
        def forward(self, hidden_states: Tensor, output_attentions: bool = False) -> Any:
            if torch.is_grad_enabled() or hidden_states.device.type != "cpu":
                return super().forward(hidden_states, output_attentions)
            batch, height, width, _ = hidden_states.shape
            qkv = self.qkv(hidden_states).view(
                batch, height, width, 3, self.num_attention_heads, -1
            )
            query, key, value = qkv.permute(3, 0, 4, 1, 2, 5).flatten(1, 2)
            keys = (key * self.scale).flatten(1, 2).transpose(-2, -1).contiguous()
            values = value.flatten(1, 2).contiguous()
            to_rows = self.get_rel_pos(height, height, self.rel_pos_h).to(query.dtype)
            to_columns = self.get_rel_pos(width, width, self.rel_pos_w).to(query.dtype)
            result = torch.empty_like(values)
            for head, asked in enumerate(query):
                by_row = torch.einsum("hwc,hkc->hwk", asked, to_rows)[..., :, None]
                by_column = torch.einsum("hwc,wkc->hwk", asked, to_columns)[..., None, :]
                for start in range(0, height, _ROWS):
                    rows = slice(start, start + _ROWS)
                    scores = (asked[rows].flatten(0, 1) @ keys[head]).view(-1, width, height, width)
                    scores += by_row[rows]
                    scores += by_column[rows]
                    weights = scores.view(-1, height * width).softmax(-1)
                    cells = slice(start * width, (start + _ROWS) * width)
                    result[head, cells] = weights @ values[head]
            result = result.unflatten(0, (batch, -1)).transpose(1, 2)
            return self.proj(result.reshape(batch, height, width, -1)), None

    by_rows = AttentionByRows(config, window_size=0)
    by_rows.load_state_dict(attention.state_dict())
    return by_rows


@BACKBONE.register
class SamViT(Backbone):
    """SAM's ViT (Kirillov et al. 2023, section 3), on transformers' module and with its key names.

    Images are square and of one size: they are padded to it.

    Args:
        image_size: side of the input, in pixels.
        patch_size: side of a patch, and stride of the output.
        embed_dim: channels of a token.
        depth: blocks.
        num_heads: attention heads.
        mlp_ratio: hidden channels of a block's MLP over ``embed_dim``.
        window_size: side of an attention window, in patches.
        global_attn_indexes: blocks that attend to the whole image.
        out_channels: channels of the output.
        activation_checkpointing: recompute blocks in the backward pass to save memory.
    """

    @configurable
    def __init__(
        self,
        *,
        image_size: int = 1024,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        window_size: int = 14,
        global_attn_indexes: Sequence[int] = (2, 5, 8, 11),
        out_channels: int = 256,
        activation_checkpointing: bool = False,
    ) -> None:
        from transformers.models.sam.configuration_sam import SamVisionConfig
        from transformers.models.sam.modeling_sam import SamVisionEncoder

        super().__init__()
        config = SamVisionConfig(
            hidden_size=embed_dim,
            output_channels=out_channels,
            num_hidden_layers=depth,
            num_attention_heads=num_heads,
            image_size=image_size,
            patch_size=patch_size,
            mlp_dim=int(embed_dim * mlp_ratio),
            window_size=window_size,
            global_attn_indexes=list(global_attn_indexes),
            initializer_range=0.02,
        )
        config._attn_implementation = "sdpa"
        self.net = SamVisionEncoder(config)
        for index in global_attn_indexes:
            layer = self.net.layers[index]
            layer.attn = _attention_by_rows(config, layer.attn)
        if activation_checkpointing:
            self.net.gradient_checkpointing_enable()
        self.image_size = image_size
        self._shape = ShapeSpec(channels=out_channels, stride=patch_size)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Named arguments from ``MODEL.SAM`` and ``MODEL.DECODER.HIDDEN_DIM``."""
        node = cfg.MODEL.SAM
        return {
            "image_size": node.IMAGE_SIZE,
            "patch_size": node.PATCH_SIZE,
            "embed_dim": node.EMBED_DIM,
            "depth": node.DEPTH,
            "num_heads": node.NUM_HEADS,
            "mlp_ratio": node.MLP_RATIO,
            "window_size": node.WINDOW_SIZE,
            "global_attn_indexes": node.GLOBAL_ATTN_INDEXES,
            "out_channels": cfg.MODEL.DECODER.HIDDEN_DIM,
            "activation_checkpointing": cfg.MODEL.ACTIVATION_CHECKPOINTING,
        }

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, S, S), S the image size -> ``image_embedding`` (B, C, S / patch, S / patch)."""
        return {"image_embedding": self.net(images).last_hidden_state}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of ``image_embedding``."""
        return {"image_embedding": self._shape}

    @property
    def padding_constraints(self) -> dict[str, int]:
        """The one size that the position embedding has."""
        return {"square_size": self.image_size}
