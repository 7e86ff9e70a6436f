"""SAM's two-way transformer: a few tokens and an image read each other (Kirillov et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TwoWayTransformer(nn.Module):
    """Blocks of self-attention, tokens to image, MLP, image to tokens; then tokens to image again.

    Positions of the image's cells enter every attention but never change: their part of keys and
    queries is computed once (``project``), and keys, values and queries of a block leave the image
    in one product. Key names are those of transformers' ``SamTwoWayTransformer``.

    Args:
        dim: C, channels of tokens and image.
        num_layers: blocks.
        num_heads: attention heads.
        dim_feedforward: hidden channels of a block's MLP.
        layer_norm_eps: of the norms in the blocks.
        downsample_rate: C over the channels inside the attention between tokens and image.
    """

    def __init__(
        self,
        dim: int,
        num_layers: int,
        num_heads: int,
        dim_feedforward: int,
        layer_norm_eps: float = 1e-6,
        downsample_rate: int = 2,
    ) -> None:
        super().__init__()
        inner = dim // downsample_rate
        self.layers = nn.ModuleList(
            _Block(dim, inner, num_heads, dim_feedforward, layer_norm_eps, first=i == 0)
            for i in range(num_layers)
        )
        self.final_attn_token_to_image = _Attention(dim, inner, num_heads)
        self.layer_norm_final_attn = nn.LayerNorm(dim)

    def project(self, position: Tensor) -> list[Tensor]:
        """What positions add to the image's keys, values and queries in each attention.

        Args:
            position: (1, C, h, w) encoding of the image's cells.

        Returns:
            (1, h * w, 3 inner) a block, and (1, h * w, 2 inner) for the last attention.
        """
        cells = position.flatten(2).transpose(1, 2)
        last = self.final_attn_token_to_image
        return [*(block.project(cells) for block in self.layers), last.keys_of_place(cells)]

    def forward(self, tokens: Tensor, image: Tensor, places: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Let G sets of tokens and an image each read one another.

        Args:
            tokens: (G, T, C); added again wherever they ask or are asked, as their positions.
            image: (G, C, h, w).
            places: from ``project``.

        Returns:
            (G, T, C) tokens and (G, C, h, w) image.
        """
        size = image.shape[-2:]
        cells = image.flatten(2).transpose(1, 2)
        prompt = tokens
        for block, place in zip(self.layers, places[:-1], strict=True):
            tokens, cells = block(tokens, cells, prompt, place)
        last = self.final_attn_token_to_image
        keys, values = last.keys_of_image(cells, places[-1]).chunk(2, dim=-1)
        read = last.attend(last.q_proj(tokens + prompt), keys, values)
        tokens = self.layer_norm_final_attn(tokens + read)
        return tokens, cells.transpose(1, 2).unflatten(2, size)


class _Attention(nn.Module):
    """Multi-head attention with fewer channels inside."""

    def __init__(self, dim: int, inner: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(G, T, C) asks (G, S, C)."""
        return self.attend(self.q_proj(query), self.k_proj(key), self.v_proj(value))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The same from projected (G, T, inner) and (G, S, inner)."""
        heads = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (query, key, value))
        return self.out_proj(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))

    def keys_of_place(self, cells: Tensor) -> Tensor:
        """Part of the positions (1, S, C), and the biases, in keys and values: (1, S, 2 inner)."""
        keys = self.k_proj(cells)
        return torch.cat([keys, self.v_proj.bias.to(keys.dtype).expand_as(keys)], dim=-1)

    def keys_of_image(self, cells: Tensor, place: Tensor) -> Tensor:
        """Keys and values (G, S, 2 inner) of the image (G, S, C)."""
        return F.linear(cells, torch.cat([self.k_proj.weight, self.v_proj.weight])) + place


class _Block(nn.Module):
    """One round in which tokens read the image and the image reads them."""

    def __init__(
        self,
        dim: int,
        inner: int,
        num_heads: int,
        dim_feedforward: int,
        layer_norm_eps: float,
        first: bool,
    ) -> None:
        super().__init__()
        self.first = first
        self.self_attn = _Attention(dim, dim, num_heads)
        self.layer_norm1 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.cross_attn_token_to_image = _Attention(dim, inner, num_heads)
        self.layer_norm2 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.mlp = _Mlp(dim, dim_feedforward)
        self.layer_norm3 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.layer_norm4 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.cross_attn_image_to_token = _Attention(dim, inner, num_heads)

    def project(self, cells: Tensor) -> Tensor:
        """Part of the positions (1, S, C) in keys, values and queries: (1, S, 3 inner)."""
        asking = self.cross_attn_image_to_token.q_proj(cells)
        return torch.cat([self.cross_attn_token_to_image.keys_of_place(cells), asking], dim=-1)

    def forward(
        self, tokens: Tensor, cells: Tensor, prompt: Tensor, place: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens (G, T, C) and cells (G, S, C), as this block leaves them."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            asked = tokens + prompt
            tokens = tokens + self.self_attn(asked, asked, tokens)
        tokens = self.layer_norm1(tokens)

        reading, answering = self.cross_attn_token_to_image, self.cross_attn_image_to_token
        weight = [reading.k_proj.weight, reading.v_proj.weight, answering.q_proj.weight]
        keys, values, queries = (F.linear(cells, torch.cat(weight)) + place).chunk(3, dim=-1)
        read = reading.attend(reading.q_proj(tokens + prompt), keys, values)
        tokens = self.layer_norm2(tokens + read)
        tokens = self.layer_norm3(tokens + self.mlp(tokens))

        keys, values = answering.k_proj(tokens + prompt), answering.v_proj(tokens)
        cells = self.layer_norm4(cells + answering.attend(queries, keys, values))
        return tokens, cells


class _Mlp(nn.Module):
    """Two linear layers around a ReLU."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lin2(F.relu(self.lin1(tokens)))


def prompts_at_once(device: torch.device) -> int:
    """How many prompts go through a two-way transformer together; each has an image of its own.

    On a CPU a few images of 4 MB stay in the cache: eight at once take 1.4 times as long, and hold
    more memory. Training keeps every activation in any case.
    """
    if torch.is_grad_enabled():
        return 1 << 30
    return 1 if device.type == "cpu" else 64
