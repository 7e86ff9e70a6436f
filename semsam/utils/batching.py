"""Batches that shrink where memory runs out, instead of ending a run of days."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

#: How torch, CUDA's libraries and the CPU allocator word it where it is a plain RuntimeError.
_WORDINGS = ("out of memory", "alloc_failed", "can't allocate memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may go where this error came from."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _WORDINGS)


class Batches:
    """The size of a model's batches, which is halved where memory runs out and then remembered.

    Args:
        size: items that a call may take at most, to begin with.
        what: the model's or step's name, for messages.

    Attributes:
        size: items that a call may take at most, as known by now.

    Raises:
        ValueError: if the size is not positive.
    """

    def __init__(self, size: int, what: str = "a model") -> None:
        if size < 1:
            raise ValueError(f"a batch has at least one item, got a size of {size}")
        self.size = size
        self.what = what

    def run(
        self,
        function: Callable[[Sequence[Item]], Sequence[Result]],
        items: Sequence[Item],
        device: torch.device | str | None = None,
    ) -> list[Result]:
        """Call a function on slices of the items.

        Args:
            function: takes at most ``size`` items and gives a result an item.
            items: any number.
            device: where the function's model lies; its cache is emptied before a smaller try.

        Returns:
            A result an item, in their order.

        Raises:
            ValueError: if the function gives another number of results than it got items.
            Exception: the function's own errors; out of memory where one item is too much.
        """
        results: list[Result] = []
        while len(results) < len(items):
            rest = items[len(results) :]
            part, found = self.attempt(partial(_call_on_part, function, rest), device)
            if len(part) != len(found):
                raise ValueError(f"{self.what} gave {len(found)} results for {len(part)} items")
            results.extend(found)
        return results

    def attempt(
        self, function: Callable[[int], Result], device: torch.device | str | None = None
    ) -> Result:
        """Call ``function(size)``, with half the size as long as memory runs out.

        Args:
            function: does a piece of work in batches of at most ``size``.
            device: as for ``run``.

        Raises:
            Exception: the function's own errors; out of memory with a size of one.
        """
        while True:
            try:
                return function(self.size)
            except Exception as error:
                if not is_out_of_memory(error) or self.size == 1:
                    raise
                reason = str(error).partition("\n")[0]
            # Here and not above: the error's frames held the tensors of the call that failed.
            _empty_cache(device)
            self.size //= 2
            logger.warning(
                "out of memory in %s (%s): going on with batches of %d",
                self.what,
                reason,
                self.size,
            )


def _call_on_part(
    function: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], size: int
) -> tuple[Sequence[Item], Sequence[Result]]:
    part = items[:size]
    return part, function(part)


def _empty_cache(device: torch.device | str | None) -> None:
    if torch.cuda.is_available() and (device is None or torch.device(device).type == "cuda"):
        torch.cuda.empty_cache()
