"""Multi-scale deformable attention (Deformable DETR, section 4.1) in plain torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SpatialShapes = list[tuple[int, int]]

#: Queries gathered at a time without gradients: keeps the index tables inside the cache.
QUERY_CHUNK = 1024


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: SpatialShapes,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Weighted sum of values sampled bilinearly at points of several levels.

    Samples outside a level read zero. On a CPU the sum runs as one gather with weights, which never
    holds the (queries x points x channels) tensor; elsewhere each level goes through
    ``grid_sample``. Both compute the same function.

    Args:
        value: (B, S, M, D), the levels' cells one after the other, row-major; M heads.
        spatial_shapes: (height, width) of each of the L levels; their areas sum to S.
        sampling_locations: (B, Q, M, L, P, 2) x, y in [0, 1] of a level's extent.
        attention_weights: (B, Q, M, L, P).

    Returns:
        (B, Q, M * D).

    Raises:
        ValueError: if the levels' areas do not sum to S.
    """
    cells = sum(h * w for h, w in spatial_shapes)
    if cells != value.shape[1]:
        raise ValueError(f"levels {spatial_shapes} have {cells} cells, value has {value.shape[1]}")
    form = _weighted_gather if value.device.type == "cpu" else _sum_of_grid_samples
    return form(value, spatial_shapes, sampling_locations, attention_weights)


def _sum_of_grid_samples(
    value: Tensor, spatial_shapes: SpatialShapes, locations: Tensor, weights: Tensor
) -> Tensor:
    batch, _, heads, dim = value.shape
    queries = locations.shape[1]
    # (B, Q, M, L, P, 2) -> (B * M, Q, L, P, 2) in [-1, 1]
    grid = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, -1)
    levels = value.split([h * w for h, w in spatial_shapes], dim=1)
    sampled = []
    for i, ((height, width), level) in enumerate(zip(spatial_shapes, levels, strict=True)):
        maps = level.permute(0, 2, 3, 1).reshape(batch * heads, dim, height, width)
        sampled.append(
            F.grid_sample(maps, grid[:, :, i], padding_mode="zeros", align_corners=False)
        )
    # (B * M, D, Q, L * P) -> (B * M, D, Q)
    output = (torch.cat(sampled, dim=-1) * weights).sum(-1)
    return output.view(batch, heads * dim, queries).transpose(1, 2)


def _weighted_gather(
    value: Tensor, spatial_shapes: SpatialShapes, locations: Tensor, weights: Tensor
) -> Tensor:
    rows, first_row = _bordered_rows(value, spatial_shapes)
    # One entry a level, shaped to meet (B, Q, M, L, P).
    width = torch.tensor([w for _, w in spatial_shapes], device=value.device)[:, None]
    height = torch.tensor([h for h, _ in spatial_shapes], device=value.device)[:, None]
    pitch = (width + 3).int()
    # The row of a level's cell (0, 0), behind the border.
    origin = first_row[:, None] + pitch + 1
    queries = locations.shape[1]
    chunk = queries if torch.is_grad_enabled() else QUERY_CHUNK
    output = []
    for start in range(0, queries, max(chunk, 1)):
        span = slice(start, start + chunk)
        x0, far_x = _cell_and_fraction(locations[:, span, ..., 0], width)
        y0, far_y = _cell_and_fraction(locations[:, span, ..., 1], height)
        corner = y0 * pitch + x0 + origin
        below = corner + pitch
        lower = far_y * weights[:, span]
        upper = weights[:, span] - lower
        lower_right, upper_right = lower * far_x, upper * far_x
        taps = [upper - upper_right, upper_right, lower - lower_right, lower_right]
        summed = F.embedding_bag(
            _bags([corner, corner + 1, below, below + 1]),
            rows,
            mode="sum",
            per_sample_weights=_bags(taps),
        )
        output.append(summed.view(len(value), -1, value.shape[2] * value.shape[3]))
    return (
        torch.cat(output, dim=1) if output else value.new_zeros(len(value), 0, value[0, 0].numel())
    )


def _bags(taps: list[Tensor]) -> Tensor:
    """Four (B, Q, M, L, P) -> (B * Q * M, 4 * L * P), all that one query and head adds up."""
    return torch.cat([tap.flatten(3) for tap in taps], dim=-1).flatten(0, 2)


def _bordered_rows(value: Tensor, spatial_shapes: SpatialShapes) -> tuple[Tensor, Tensor]:
    """Values as rows of channels, each level inside a border of zeros.

    The border (one cell before, two behind) takes the taps that fall outside, so that no tap needs
    a mask.

    Returns:
        (R, D) rows in the order image, head, level, y, x; and (B, M, L, 1) int32, each level's
        first row.
    """
    batch, _, heads, dim = value.shape
    levels = value.transpose(1, 2).split([h * w for h, w in spatial_shapes], dim=2)
    padded = [
        F.pad(level.unflatten(2, shape), (0, 0, 1, 2, 1, 2)).flatten(2, 3)
        for level, shape in zip(levels, spatial_shapes, strict=True)
    ]
    sizes = [level.shape[2] for level in padded]
    level_start = torch.tensor([0, *sizes[:-1]], device=value.device).cumsum(0)
    head_start = torch.arange(batch * heads, device=value.device) * sum(sizes)
    start = head_start.view(batch, heads, 1, 1) + level_start[:, None]
    return torch.cat(padded, dim=2).view(-1, dim), start.int()


def _cell_and_fraction(location: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Cell (int32) at or before a location in [0, 1], and the fraction of the way to the next.

    Locations beyond the border are moved onto it, where the values are zero.
    """
    position = (location * size - 0.5).clamp(min=-1).minimum(size.to(location.dtype))
    cell = position.detach().floor()
    return cell.int(), position - cell


class MSDeformAttn(nn.Module):
    """Multi-scale deformable attention with its projections.

    Args:
        dim: channels of queries and output.
        num_levels: L.
        num_heads: M; divides ``dim``.
        num_points: P, points a head samples on each level.

    Raises:
        ValueError: if ``num_heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, num_levels: int, num_heads: int, num_points: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{num_heads} heads do not divide {dim} channels")
        self.num_levels, self.num_heads, self.num_points = num_levels, num_heads, num_points
        self.sampling_offsets = nn.Linear(dim, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(dim, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Heads look in different directions, points at growing distance (paper, appendix A.4)."""
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        direction = torch.stack([angles.cos(), angles.sin()], dim=-1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance = torch.arange(1, self.num_points + 1)
        offsets = direction[:, None, None] * distance[:, None]
        offsets = offsets.expand(-1, self.num_levels, -1, -1)
        with torch.no_grad():
            nn.init.zeros_(self.sampling_offsets.weight)
            self.sampling_offsets.bias.copy_(offsets.reshape(-1))
            for layer in (self.value_proj, self.output_proj):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
            nn.init.zeros_(self.attention_weights.weight)
            nn.init.zeros_(self.attention_weights.bias)

    def project_value(self, memory: Tensor) -> Tensor:
        """(B, S, C) features -> (B, S, M, C / M) values; depends on the image alone."""
        return self.value_proj(memory).unflatten(-1, (self.num_heads, -1))

    def forward(
        self, query: Tensor, reference: Tensor, value: Tensor, spatial_shapes: SpatialShapes
    ) -> Tensor:
        """Attend around reference points or boxes.

        Args:
            query: (B, Q, C).
            reference: (B, Q, L, 2) points x, y, or (B, Q, L, 4) boxes cx, cy, w, h; in [0, 1] of
                the padded frame. L is 1 where all levels share them.
            value: (B, S, M, C / M) from ``project_value``.
            spatial_shapes: (height, width) of each level.

        Returns:
            (B, Q, C).

        Raises:
            ValueError: if references have neither 2 nor 4 numbers.
        """
        shape = (self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*shape, 2))
        weights = self.attention_weights(query).unflatten(-1, (self.num_heads, -1))
        weights = weights.softmax(-1).unflatten(-1, shape[1:])
        reference = reference[:, :, None, :, None]
        if reference.shape[-1] == 2:
            sizes = [[w, h] for h, w in spatial_shapes]
            offsets = offsets / torch.tensor(sizes, device=query.device, dtype=query.dtype)[:, None]
            locations = reference + offsets
        elif reference.shape[-1] == 4:
            locations = reference[..., :2] + offsets / self.num_points * reference[..., 2:] * 0.5
        else:
            raise ValueError(f"references have 2 or 4 numbers, got {reference.shape[-1]}")
        return self.output_proj(ms_deform_attn(value, spatial_shapes, locations, weights))
