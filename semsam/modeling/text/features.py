"""Features of names, computed once a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from semsam.utils.batching import Batches


class TextFeatures:
    """A table that grows as names are asked for, until it is cleared.

    Args:
        encode: n names -> (n, D); must not let names of one call influence each other.
        batches: how many names the function takes at once.
    """

    def __init__(self, encode: Callable[[Sequence[str]], Tensor], batches: Batches) -> None:
        self._encode = encode
        self._batches = batches
        self._known: dict[str, Tensor] = {}

    def __call__(self, names: Sequence[str]) -> Tensor:
        """(N, D) features of N names, at least one."""
        new = [name for name in dict.fromkeys(names) if name not in self._known]
        # Names of like length stand together, so that little is padded.
        new.sort(key=len)
        encoded = self._batches.run(lambda part: self._encode(part).unbind(), new)
        self._known.update(zip(new, encoded, strict=True))
        return torch.stack([self._known[name] for name in names])

    def clear(self) -> None:
        """Forget every name."""
        self._known.clear()


def tokenize(tokenizer: Any, names: Sequence[str], limit: int) -> Any:
    """Input of a text tower of transformers; what is beyond the limit of tokens is cut off."""
    return tokenizer(
        list(names), padding=True, truncation=True, max_length=limit, return_tensors="pt"
    )
