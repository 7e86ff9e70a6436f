"""An exponential moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class ModelEMA:
    """Averages the parameters of a model: ``average = decay * average + (1 - decay) * weight``.

    Args:
        model: its present weights are the first average.
        decay: between 0 and 1.

    Raises:
        ValueError: for another decay.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of averaged weights is in [0, 1), not {decay}")
        self._model = model
        self._decay = decay
        self._average = {k: p.detach().clone() for k, p in model.named_parameters()}

    @torch.no_grad()
    def reset(self) -> None:
        """Start again from the model's present weights."""
        for name, parameter in self._model.named_parameters():
            self._average[name].copy_(parameter)

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's present weights into the average."""
        present = [_own_part(p.detach()) for p in self._model.parameters()]
        average = [_own_part(value) for value in self._average.values()]
        torch._foreach_lerp_(average, present, 1 - self._decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[nn.Module]:
        """Let the model have the averaged weights for the time of a ``with`` block."""
        self._swap()
        try:
            yield self._model
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # In place: FSDP gathers the memory that a parameter had from the first.
        for name, parameter in self._model.named_parameters():
            own, average = _own_part(parameter), _own_part(self._average[name])
            kept = own.clone()
            own.copy_(average)
            average.copy_(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged parameters by name."""
        return dict(self._average)

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Go on from ``state_dict``.

        Raises:
            ValueError: if its names are not those of the model's parameters.
        """
        if state_dict.keys() != self._average.keys():
            different = sorted(state_dict.keys() ^ self._average.keys())
            raise ValueError(f"averaged weights of another model; names that differ: {different}")
        for name, value in state_dict.items():
            self._average[name].copy_(value)


def _own_part(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor, to change in place."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
