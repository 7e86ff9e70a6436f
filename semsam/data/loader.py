"""Batches from worker processes, which may die or hang without an end to the training."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader

#: The loader is built again this often in so many batches; then something is wrong for good.
_MAX_LOSSES, _STRETCH = 3, 1000
#: Seconds between a broken connection and the end of the process at its other side.
_DYING_SECONDS = 1.0

logger = logging.getLogger(__name__)


class SteadyLoader:
    """The batches of a loader, which is built again where it was when its workers are lost.

    Where what a batch holds depends on its place alone, nobody sees a difference.

    Args:
        build: number of batches taken so far -> a loader of those that follow.
    """

    def __init__(self, build: Callable[[int], DataLoader]) -> None:
        self._build = build

    def __iter__(self) -> Iterator[Any]:
        """Yield batches.

        Raises:
            RuntimeError: if workers were lost more than 3 times in 1,000 batches.
        """
        taken = 0
        losses: list[int] = []
        batches = _WorkerBatches(self._build(0))
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except WorkersLostError as error:
                losses = [place for place in losses if place > taken - _STRETCH] + [taken]
                if len(losses) > _MAX_LOSSES:
                    raise RuntimeError(
                        f"the processes that load data were lost {len(losses)} times in the last "
                        f"{_STRETCH} batches, now because {error}. Killed ones may have been out "
                        "of memory (lower DATALOADER.NUM_WORKERS); with NUM_WORKERS 0 an image "
                        "that ends or blocks a process does so in sight. DATALOADER.TIMEOUT is "
                        "how long a batch may take"
                    ) from error
                logger.warning("loading goes on at batch %d with new workers: %s", taken, error)
                batches = _WorkerBatches(self._build(taken))
                continue
            yield batch
            taken += 1


class WorkersLostError(RuntimeError):
    """A process that loads data has died or does not answer."""


class _WorkerBatches:
    """An iterator of a loader that knows its worker processes.

    Raises:
        WorkersLostError: from ``__next__``; no worker is left then.
    """

    def __init__(self, loader: DataLoader) -> None:
        others = set(multiprocessing.active_children())
        self._batches = iter(loader)
        self._workers = [p for p in multiprocessing.active_children() if p not in others]
        self._timeout = loader.timeout
        _silence_torch()

    def __next__(self) -> Any:
        try:
            with self._interrupted_by_deaths():
                return next(self._batches)
        except (RuntimeError, OSError, EOFError) as error:
            fault = self._fault(error)
            if not fault:
                raise
            for worker in self._workers:
                worker.kill()
                worker.join()
            raise WorkersLostError(fault) from error

    def _fault(self, error: Exception) -> str:
        """What has become of the workers, or an empty string if the error is not about them."""
        if not self._workers:
            return ""
        ended = wait([worker.sentinel for worker in self._workers], _DYING_SECONDS)
        codes = {w.pid: w.exitcode for w in self._workers if w.sentinel in ended}
        if codes:
            return ", ".join(f"process {pid} {_end(code)}" for pid, code in codes.items())
        if "DataLoader timed out" in str(error):
            return f"no batch came within {self._timeout:g} s"
        return ""

    @contextlib.contextmanager
    def _interrupted_by_deaths(self) -> Iterator[None]:
        """End the wait for a batch when a worker dies: the queue would be silent, or cut short."""
        if not self._workers or threading.current_thread() is not threading.main_thread():
            yield
            return

        def check(_signal: int, _frame: FrameType | None) -> None:
            # They end with 0 when nothing is left to load.
            if any(worker.exitcode for worker in self._workers):
                raise WorkersLostError

        previous = signal.signal(signal.SIGCHLD, check)
        try:
            check(signal.SIGCHLD, None)  # it may have died since the last batch
            yield
        finally:
            # None stands for a handler that was not set from Python.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if previous is None else previous)


def _silence_torch() -> None:
    """Remove torch's handler, which raises the death of a worker in the midst of a step."""
    handler = signal.getsignal(signal.SIGCHLD)
    if (getattr(handler, "__module__", None) or "").startswith("torch.utils.data"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _end(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended with code {exit_code}"
