"""The multi-scale deformable pixel decoder (Mask2Former, section 3.2.3; Mask DINO)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from semsam.config import CfgNode, configurable
from semsam.layers.blocks import by_rows
from semsam.layers.ms_deform_attn import MSDeformAttn, SpatialShapes
from semsam.layers.position_encoding import grid_position_encoding
from semsam.modeling.backbone.backbone import ShapeSpec
from semsam.modeling.build import PIXEL_DECODER


class EncoderLayer(nn.Module):
    """Deformable self-attention over all levels and a feed-forward, post-norm."""

    def __init__(
        self, dim: int, num_levels: int, num_heads: int, num_points: int, dim_feedforward: int
    ) -> None:
        super().__init__()
        self.self_attn = MSDeformAttn(dim, num_levels, num_heads, num_points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm2 = nn.LayerNorm(dim)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(
        self, x: Tensor, position: Tensor, reference: Tensor, spatial_shapes: SpatialShapes
    ) -> Tensor:
        """(B, S, C) -> (B, S, C); the position is added to queries, not to values."""
        value = self.self_attn.project_value(x)
        x = self.norm1(x + self.self_attn(x + position, reference, value, spatial_shapes))
        return self.norm2(x + by_rows(self._feed_forward, x))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.relu(self.linear1(x), inplace=True))


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, bias: bool = False
) -> nn.Sequential:
    """A convolution that keeps the size (at stride 1) and GroupNorm over 32 groups."""
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=bias
    )
    nn.init.xavier_uniform_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.GroupNorm(32, out_channels))


@PIXEL_DECODER.register
class MSDeformAttnPixelDecoder(nn.Module):
    """A deformable encoder over the coarse maps, and one top-down step to the finest.

    The encoder's levels are all backbone maps but the finest, then ``num_levels`` is filled up with
    stride-2 convolutions of the coarsest map. It runs in float32 also under autocast.

    Args:
        shapes: the backbone's maps by name, finest (stride 4) first.
        conv_dim: channels of the encoder; a multiple of 32.
        mask_dim: channels of the mask features.
        num_layers: encoder layers.
        num_heads: attention heads.
        num_points: points a head samples on each level.
        dim_feedforward: hidden channels of the feed-forward.
        num_levels: levels of the encoder.
        activation_checkpointing: recompute encoder layers in the backward pass.

    Raises:
        ValueError: if there are fewer levels than backbone maps below the finest.
    """

    @configurable
    def __init__(
        self,
        shapes: dict[str, ShapeSpec],
        *,
        conv_dim: int = 256,
        mask_dim: int = 256,
        num_layers: int = 6,
        num_heads: int = 8,
        num_points: int = 4,
        dim_feedforward: int = 2048,
        num_levels: int = 4,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        finest, *coarse = sorted(shapes, key=lambda name: shapes[name].stride)
        if num_levels < len(coarse) or not coarse:
            raise ValueError(
                f"{num_levels} levels cannot hold the {len(coarse)} maps {coarse}; "
                "MODEL.PIXEL_DECODER.NUM_LEVELS must be at least their number"
            )
        self.finest, self.coarse = finest, coarse
        self.activation_checkpointing = activation_checkpointing
        self.input_proj = nn.ModuleList(
            conv_norm(shapes[name].channels, conv_dim, 1, bias=True) for name in coarse
        )
        in_channels = shapes[coarse[-1]].channels
        for _ in range(num_levels - len(coarse)):
            self.input_proj.append(conv_norm(in_channels, conv_dim, 3, stride=2, bias=True))
            in_channels = conv_dim
        self.level_embed = nn.Parameter(torch.empty(num_levels, conv_dim).normal_())
        self.layers = nn.ModuleList(
            EncoderLayer(conv_dim, num_levels, num_heads, num_points, dim_feedforward)
            for _ in range(num_layers)
        )
        self.lateral = conv_norm(shapes[finest].channels, conv_dim, 1)
        self.output = conv_norm(conv_dim, conv_dim, 3)
        self.mask_features = nn.Conv2d(conv_dim, mask_dim, 1)
        self.conv_dim, self.mask_dim, self.num_levels = conv_dim, mask_dim, num_levels

    @classmethod
    def from_config(cls, cfg: CfgNode, shapes: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Named arguments from ``MODEL.PIXEL_DECODER``."""
        node = cfg.MODEL.PIXEL_DECODER
        return {
            "shapes": shapes,
            "conv_dim": node.CONV_DIM,
            "mask_dim": node.MASK_DIM,
            "num_layers": node.NUM_LAYERS,
            "num_heads": node.NUM_HEADS,
            "num_points": node.NUM_POINTS,
            "dim_feedforward": node.DIM_FEEDFORWARD,
            "num_levels": node.NUM_LEVELS,
            "activation_checkpointing": cfg.MODEL.ACTIVATION_CHECKPOINTING,
        }

    def forward(self, features: dict[str, Tensor]) -> dict[str, Any]:
        """Encode the coarse maps and build mask features.

        Args:
            features: name -> (B, C, h, w), the backbone's maps.

        Returns:
            ``multi_scale``: list of (B, conv_dim, h, w), finest (stride 8) first;
            ``mask_features``: (B, mask_dim, H/4, W/4).
        """
        device_type = features[self.finest].device.type
        with torch.autocast(device_type, enabled=False):
            # GroupNorm loses digits on the transposed layout that backbones give: 1e-3 on a small
            # map, which is then a percent of the gradient.
            features = {name: x.float().contiguous() for name, x in features.items()}
            maps = self._encode([features[name] for name in self.coarse])
            fine = self.lateral(features[self.finest])
            # Resizing is 8 times slower on the transposed layout in which the map lies.
            coarse = maps[0].contiguous()
            up = F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
            mask_features = self.mask_features(F.relu(self.output(fine + up)))
        return {"multi_scale": maps, "mask_features": mask_features}

    def _encode(self, maps: list[Tensor]) -> list[Tensor]:
        projected = [proj(x) for proj, x in zip(self.input_proj, maps, strict=False)]
        extra = maps[-1]
        for proj in self.input_proj[len(maps) :]:
            extra = proj(extra)
            projected.append(extra)
        spatial_shapes = [(x.shape[-2], x.shape[-1]) for x in projected]
        x = torch.cat([m.flatten(2).transpose(1, 2) for m in projected], dim=1)
        position = torch.cat(
            [
                grid_position_encoding(h, w, self.conv_dim, x.device) + level
                for (h, w), level in zip(spatial_shapes, self.level_embed, strict=True)
            ]
        )
        reference = torch.cat([cell_centres(h, w, x.device) for h, w in spatial_shapes])
        reference = reference[None, :, None].expand(x.shape[0], -1, -1, -1)
        for layer in self.layers:
            if self.activation_checkpointing and self.training:
                args = (x, position, reference, spatial_shapes)
                x = checkpoint(layer, *args, use_reentrant=False)
            else:
                x = layer(x, position, reference, spatial_shapes)
        levels = x.split([h * w for h, w in spatial_shapes], dim=1)
        return [
            level.transpose(1, 2).unflatten(2, shape)
            for level, shape in zip(levels, spatial_shapes, strict=True)
        ]


def cell_centres(height: int, width: int, device: torch.device) -> Tensor:
    """(height * width, 2) x, y of the cells' centres in [0, 1], row-major."""
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([grid_x, grid_y], dim=-1).flatten(0, 1)
