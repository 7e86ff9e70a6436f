"""Small modules that several networks share."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROWS_PER_CHUNK = 1024


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        input_dim: channels in.
        hidden_dim: channels between.
        output_dim: channels out.
        num_layers: number of linear layers, 1 or more.
    """

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int) -> None:
        super().__init__()
        dims = [input_dim, *[hidden_dim] * (num_layers - 1), output_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """(..., input_dim) -> (..., output_dim)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def by_rows(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function of single rows, keeping what it holds in between small.

    Without gradients on a CPU it runs chunk by chunk, so that a wide hidden layer stays in the
    cache (1.7 times faster for a feed-forward of 256 -> 2048 -> 256 on 21,760 rows); elsewhere it
    runs at once.

    Args:
        function: (R, C) -> (R, D), each row by itself.
        x: (..., C).

    Returns:
        (..., D).
    """
    rows = x.reshape(-1, x.shape[-1])
    if x.device.type != "cpu" or torch.is_grad_enabled() or len(rows) <= ROWS_PER_CHUNK:
        return function(rows).view(*x.shape[:-1], -1)
    output = torch.cat([function(chunk) for chunk in rows.split(ROWS_PER_CHUNK)])
    return output.view(*x.shape[:-1], -1)


class DropPath(nn.Module):
    """Stochastic depth: in training, drop a residual branch of whole samples.

    Args:
        rate: probability of dropping a sample's branch.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...), kept samples scaled by 1 / (1 - rate)."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        shape = (x.shape[0],) + (1,) * (x.dim() - 1)
        return x * torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(keep).div_(keep)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logit of values in [0, 1], finite at both ends: x and 1 - x are at least ``eps``."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))
