"""Features of names, computed once a name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .batching import Batches

#: Phrases of millions of captions do not end; the least recently used go first.
LIMIT = 20_000


class TextFeatures:
    """A table that grows as names are asked for.

    Args:
        encode: n names -> (n, D); must not let names of one call influence each other.
        batches: how many names the function takes at once.
        limit: names that are kept.
    """

    def __init__(
        self, encode: Callable[[Sequence[str]], Tensor], batches: Batches, limit: int = LIMIT
    ) -> None:
        self._encode = encode
        self._batches = batches
        self._limit = limit
        self._known: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, names: Sequence[str]) -> Tensor:
        """(N, D) features of N names, at least one."""
        new = [name for name in dict.fromkeys(names) if name not in self._known]
        # Names of like length stand together, so that little is padded.
        new.sort(key=len)
        encoded = self._batches.run(lambda part: self._encode(part).unbind(), new)
        self._known.update(zip(new, encoded, strict=True))
        found = torch.stack([self._known[name] for name in names])
        for name in dict.fromkeys(names):
            self._known.move_to_end(name)
        while len(self._known) > self._limit:
            self._known.popitem(last=False)
        return found


def tokenize(tokenizer: Any, names: Sequence[str], limit: int) -> Any:
    """Input of a text tower of transformers; what is beyond the limit of tokens is cut off."""
    return tokenizer(
        list(names), padding=True, truncation=True, max_length=limit, return_tensors="pt"
    )
