"""One layer of the interactive Mask-DINO decoder."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from semsam.layers.ms_deform_attn import MSDeformAttn, SpatialShapes


class DecoderLayer(nn.Module):
    """Self-attention inside a group of queries, deformable cross-attention, feed-forward.

    Post-norm; ``norm2`` follows self-attention and ``norm1`` cross-attention, as in the released
    weights.
    """

    def __init__(
        self, dim: int, num_levels: int, num_heads: int, num_points: int, dim_feedforward: int
    ) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.cross_attn = MSDeformAttn(dim, num_levels, num_heads, num_points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm3 = nn.LayerNorm(dim)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        reference: Tensor,
        value: Tensor,
        spatial_shapes: SpatialShapes,
        group_size: int,
    ) -> Tensor:
        """Update the queries.

        Args:
            x: (B, Q, C) queries.
            position: (B, Q, C) their position encoding.
            reference: (B, Q, 4) their boxes, cx, cy, w, h in [0, 1].
            value: (B, S, M, C / M) image values for the cross-attention.
            spatial_shapes: (height, width) of each level.
            group_size: consecutive queries that attend to each other; divides Q.

        Returns:
            (B, Q, C).
        """
        groups = x.reshape(-1, group_size, x.shape[-1])
        query = groups + position.reshape(groups.shape)
        attended, _ = self.self_attn(query, query, groups, need_weights=False)
        x = self.norm2(x + attended.reshape(x.shape))
        sampled = self.cross_attn(x + position, reference[:, :, None], value, spatial_shapes)
        x = self.norm1(x + sampled)
        return self.norm3(x + self.linear2(F.relu(self.linear1(x), inplace=True)))
