"""Multi-scale deformable attention (Deformable DETR, section 4.1) in plain torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SpatialShapes = list[tuple[int, int]]

#: Queries sampled at a time without gradients: keeps the index tables inside the cache.
QUERY_CHUNK = 1024


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: SpatialShapes,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Weighted sum of values sampled bilinearly at points of several levels.

    Samples outside a level read zero. Without gradients on a CPU the sum runs as one gather with
    weights, which never holds the (queries x points x channels) tensor; elsewhere each level goes
    through ``grid_sample``. Both compute the same function.

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
    differentiated = torch.is_grad_enabled() and any(
        t.requires_grad for t in (value, sampling_locations, attention_weights)
    )
    if differentiated or value.device.type != "cpu":
        return _sum_of_grid_samples(value, spatial_shapes, sampling_locations, attention_weights)
    return _weighted_gather(value, spatial_shapes, sampling_locations, attention_weights)


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
    batch, cells, heads, dim = value.shape
    queries = locations.shape[1]
    device = value.device
    sizes = torch.tensor([[w, h] for h, w in spatial_shapes], device=device, dtype=value.dtype)
    areas = [0, *(h * w for h, w in spatial_shapes[:-1])]
    level_start = torch.tensor(areas, device=device).cumsum(0)[:, None]
    rows = value.transpose(1, 2).reshape(batch * heads * cells, dim)
    head_start = torch.arange(heads, device=device)[:, None, None] * cells + level_start
    output = value.new_empty(batch, queries, heads * dim)
    for image in range(batch):
        for start in range(0, queries, QUERY_CHUNK):
            span = slice(start, start + QUERY_CHUNK)
            indices, taps = _bilinear_taps(locations[image, span], weights[image, span], sizes)
            indices += head_start + image * heads * cells
            bags = indices.shape[1] * heads
            summed = F.embedding_bag(
                indices.permute(1, 2, 3, 4, 0).reshape(bags, -1),
                rows,
                mode="sum",
                per_sample_weights=taps.permute(1, 2, 3, 4, 0).reshape(bags, -1),
            )
            output[image, span] = summed.view(-1, heads * dim)
    return output


def _bilinear_taps(locations: Tensor, weights: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """The four cells around each point and their weights; cells outside weigh zero.

    Returns:
        (4, Q, M, L, P) int64 cell of the level, and the weights in the same shape.
    """
    position = locations * sizes[:, None] - 0.5
    corner = position.floor()
    far = position - corner
    near = 1 - far
    width, height = sizes[:, 0, None], sizes[:, 1, None]
    x0, y0 = corner.unbind(-1)
    x1, y1 = x0 + 1, y0 + 1
    inside_x = [(x >= 0) & (x < width) for x in (x0, x1)]
    inside_y = [(y >= 0) & (y < height) for y in (y0, y1)]
    weight_x = [near[..., 0] * inside_x[0], far[..., 0] * inside_x[1]]
    weight_y = [near[..., 1] * inside_y[0] * weights, far[..., 1] * inside_y[1] * weights]
    limit_x, limit_y = width - 1, height - 1
    columns = [x.clamp(min=0).minimum(limit_x) for x in (x0, x1)]
    lines = [y.clamp(min=0).minimum(limit_y) * width for y in (y0, y1)]
    cells = torch.stack([line + column for line in lines for column in columns])
    taps = torch.stack([y * x for y in weight_y for x in weight_x])
    return cells.long(), taps


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
