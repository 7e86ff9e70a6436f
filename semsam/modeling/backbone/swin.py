"""Swin Transformer for dense prediction (Liu et al., ICCV 2021), as in the released detectors.

Two points set it apart from the classification form: every stage's output has its own LayerNorm,
and maps of any size are padded to whole windows *before* the shift; the padding takes part in
attention, and the window keeps its size on maps that are smaller than it. Parameter names are
those of the released weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from semsam.config import CfgNode, configurable
from semsam.layers.blocks import DropPath, by_rows
from semsam.modeling.build import BACKBONE

from .backbone import Backbone, ShapeSpec


class PatchEmbed(nn.Module):
    """Non-overlapping 4x4 patches -> (B, H/4, W/4, C); odd rests are padded with zeros."""

    def __init__(self, embed_dim: int, patch_size: int = 4) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, embed_dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, ceil(H/4), ceil(W/4), C)."""
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % self.patch_size, 0, -height % self.patch_size))
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Halve the map and double the channels: (B, H, W, C) -> (B, ceil(H/2), ceil(W/2), 2C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate the four cells of each 2x2 block column by column, normalise, project."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        cells = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(torch.cat(cells, dim=-1)))


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned bias for each relative position."""

    relative_position_index: Tensor

    def __init__(self, dim: int, window_size: int, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * window_size - 1) ** 2, num_heads)
        )
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        grid = torch.cartesian_prod(torch.arange(window_size), torch.arange(window_size))
        offset = grid[:, None] - grid[None] + window_size - 1
        index = offset[..., 0] * (2 * window_size - 1) + offset[..., 1]
        self.register_buffer("relative_position_index", index, persistent=False)

    def position_bias(self) -> Tensor:
        """(heads, L, L) bias between the L positions of a window."""
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)

    def forward(self, windows: Tensor, region_mask: Tensor | None) -> Tensor:
        """Attend inside each window.

        Args:
            windows: (B, n, L, C), the n windows of each image.
            region_mask: (n, L, L) additive mask between regions that only the shift made
                neighbours, or None.

        Returns:
            (B, n, L, C).
        """
        batch, number, length, dim = windows.shape
        heads = self.num_heads
        qkv = self.qkv(windows).reshape(batch, number, length, 3, heads, dim // heads)
        bias = self.position_bias()
        if region_mask is None:
            q, k, v = qkv.flatten(0, 1).permute(2, 0, 3, 1, 4)
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].to(q.dtype))
            attended = attended.transpose(1, 2)
        else:
            # Windows join the heads' dimension, for each window has a mask of its own.
            q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).flatten(2, 3)
            mask = (bias[None] + region_mask[:, None]).flatten(0, 1)[None]
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype))
            attended = attended.unflatten(1, (number, heads)).transpose(2, 3)
        return self.proj(attended.reshape(batch, number, length, dim))


class FeedForward(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return by_rows(self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """Window attention and feed-forward, pre-norm, on (B, H, W, C)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        shift: int,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window_size, num_heads, qkv_bias)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, region_mask: Tensor) -> Tensor:
        """One block; ``region_mask`` is used by shifted blocks only."""
        x = x + self.drop_path(self._attend(self.norm1(x), region_mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, region_mask: Tensor) -> Tensor:
        batch, height, width, dim = x.shape
        size = self.window_size
        x = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        rows, columns = x.shape[1] // size, x.shape[2] // size
        windows = x.view(batch, rows, size, columns, size, dim).transpose(2, 3)
        windows = windows.reshape(batch, rows * columns, size * size, dim)
        windows = self.attn(windows, region_mask if self.shift else None)
        x = windows.view(batch, rows, columns, size, size, dim).transpose(2, 3)
        x = x.reshape(batch, rows * size, columns * size, dim)
        if self.shift:
            x = x.roll((self.shift, self.shift), dims=(1, 2))
        return x[:, :height, :width]


def shifted_region_mask(height: int, width: int, window_size: int, device: torch.device) -> Tensor:
    """Mask between cells that share a shifted window but not a region of the unshifted map.

    Returns:
        (windows, L, L) float32: 0 where attention is allowed, -100 (as released) elsewhere.
    """
    shift = window_size // 2

    def regions(length: int) -> Tensor:
        padded = -(-length // window_size) * window_size
        position = torch.arange(padded, device=device)
        return (position >= padded - window_size).int() + (position >= padded - shift).int()

    row, column = regions(height), regions(width)
    label = row[:, None] * 3 + column[None]
    windows = label.view(-1, window_size, label.shape[1] // window_size, window_size)
    windows = windows.transpose(1, 2).reshape(-1, window_size * window_size)
    return (windows[:, None] != windows[:, :, None]).float() * -100.0


class SwinStage(nn.Module):
    """Blocks of one resolution; every second block shifts its windows."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_path_rates: list[float],
        downsample: bool,
        activation_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.activation_checkpointing = activation_checkpointing
        self.blocks = nn.ModuleList(
            SwinBlock(
                dim=dim,
                num_heads=num_heads,
                window_size=window_size,
                shift=window_size // 2 if i % 2 else 0,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                drop_path=rate,
            )
            for i, rate in enumerate(drop_path_rates)
        )
        self.downsample = PatchMerging(dim) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C), before any downsampling."""
        mask = shifted_region_mask(x.shape[1], x.shape[2], self.window_size, x.device)
        for block in self.blocks:
            if self.activation_checkpointing and self.training:
                x = checkpoint(block, x, mask, use_reentrant=False)
            else:
                x = block(x, mask)
        return x


@BACKBONE.register
class SwinTransformer(Backbone):
    """Swin with maps ``res2`` .. ``res5`` at strides 4, 8, 16, 32.

    Args:
        embed_dim: channels of ``res2``; they double with each stage.
        depths: blocks of each stage.
        num_heads: heads of each stage.
        window_size: cells along a window's side.
        mlp_ratio: hidden channels of the feed-forward, relative to the stage's channels.
        qkv_bias: whether queries, keys and values have a bias.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        activation_checkpointing: recompute blocks in the backward pass to save memory.
    """

    @configurable
    def __init__(
        self,
        *,
        embed_dim: int = 96,
        depths: list[int] | tuple[int, ...] = (2, 2, 6, 2),
        num_heads: list[int] | tuple[int, ...] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if len(depths) != len(num_heads):
            raise ValueError(f"depths {depths} and num_heads {num_heads} differ in length")
        self.patch_embed = PatchEmbed(embed_dim)
        last = max(sum(depths) - 1, 1)
        rates = [drop_path_rate * i / last for i in range(sum(depths))]
        self.layers = nn.ModuleList()
        for i, depth in enumerate(depths):
            dim = embed_dim * 2**i
            self.layers.append(
                SwinStage(
                    dim=dim,
                    num_heads=num_heads[i],
                    window_size=window_size,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    drop_path_rates=[rates.pop(0) for _ in range(depth)],
                    downsample=i < len(depths) - 1,
                    activation_checkpointing=activation_checkpointing,
                )
            )
            self.add_module(f"norm{i}", nn.LayerNorm(dim))
        self._shapes = {
            f"res{i + 2}": ShapeSpec(channels=embed_dim * 2**i, stride=4 * 2**i)
            for i in range(len(depths))
        }
        self.apply(_init_weights)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Named arguments from ``MODEL.SWIN``."""
        node = cfg.MODEL.SWIN
        return {
            "embed_dim": node.EMBED_DIM,
            "depths": node.DEPTHS,
            "num_heads": node.NUM_HEADS,
            "window_size": node.WINDOW_SIZE,
            "mlp_ratio": node.MLP_RATIO,
            "qkv_bias": node.QKV_BIAS,
            "drop_path_rate": node.DROP_PATH_RATE,
            "activation_checkpointing": cfg.MODEL.ACTIVATION_CHECKPOINTING,
        }

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> ``res2`` .. ``res5``, each (B, C, H/stride, W/stride)."""
        x = self.patch_embed(images)
        outputs = {}
        for i, stage in enumerate(self.layers):
            x = stage(x)
            outputs[f"res{i + 2}"] = getattr(self, f"norm{i}")(x).permute(0, 3, 1, 2)
            if stage.downsample is not None:
                x = stage.downsample(x)
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and strides of ``res2`` .. ``res5``."""
        return self._shapes

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Whole cells at the coarsest map."""
        return {"size_divisibility": max(s.stride for s in self._shapes.values())}


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
