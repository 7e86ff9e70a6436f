"""What training measures, and the files and lines it is written to."""

from __future__ import annotations

import datetime
import json
import logging
import resource
from collections import defaultdict
from pathlib import Path
from typing import Any, Protocol

import torch

from . import comm
from .file_io import atomic_write


class EventStorage:
    """Scalars of the iterations since the last write.

    What is written is their mean, so no value is lost between lines. The state goes into
    checkpoints: a resumed run writes the same lines.
    """

    def __init__(self) -> None:
        self._pending: dict[str, list[float]] = defaultdict(list)

    def put_scalar(self, name: str, value: float) -> None:
        """Record one value of the current iteration."""
        self._pending[name].append(float(value))

    def put_scalars(self, **values: float) -> None:
        """Record several values of the current iteration."""
        for name, value in values.items():
            self.put_scalar(name, value)

    def take(self) -> dict[str, float]:
        """Return each scalar's mean since the last call, over the ranks too, and start afresh.

        Every rank has to call it; rank 0 alone gets the values, the others an empty dict.
        """
        own = {name: sum(values) / len(values) for name, values in self._pending.items()}
        self._pending.clear()
        merged: dict[str, list[float]] = defaultdict(list)
        for rank in comm.gather(own):
            for name, value in rank.items():
                merged[name].append(value)
        return {name: sum(values) / len(values) for name, values in merged.items()}

    def state_dict(self) -> dict[str, list[float]]:
        """Scalars that no line holds yet (of this rank)."""
        return {name: list(values) for name, values in self._pending.items()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        """Go on from ``state_dict``."""
        self._pending = defaultdict(list, {name: list(values) for name, values in state.items()})


class EventWriter(Protocol):
    """Where scalars go."""

    def write(self, iteration: int, scalars: dict[str, float]) -> None:
        """Write the scalars of one line."""

    def close(self) -> None:
        """Release files."""


class JSONWriter:
    """One json object a line: ``{"iteration": 19, "total_loss": 3.1, ...}``.

    Args:
        path: the file. Lines from ``start_iter`` on, left by a run that was broken off after its
            last checkpoint, are dropped, as is a line cut short.
        start_iter: first iteration of this run.
    """

    def __init__(self, path: str | Path, start_iter: int = 0) -> None:
        path = Path(path)
        kept = [json.dumps(line) for line in read_metrics(path) if line["iteration"] < start_iter]
        with atomic_write(path) as file:
            file.writelines(f"{line}\n" for line in kept)
        self._file = path.open("a", encoding="utf-8")

    def write(self, iteration: int, scalars: dict[str, float]) -> None:
        """Append a line; it has left the process when this returns."""
        self._file.write(json.dumps({"iteration": iteration, **dict(sorted(scalars.items()))}))
        self._file.write("\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Return the lines of a ``metrics.json``; a missing file has none, a torn line is left out."""
    path = Path(path)
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


class TensorBoardWriter:
    """TensorBoard event files.

    Args:
        folder: where they go.
        start_iter: first iteration of this run; TensorBoard hides what is there from it on.
    """

    def __init__(self, folder: str | Path, start_iter: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=start_iter)

    def write(self, iteration: int, scalars: dict[str, float]) -> None:
        """Add each scalar."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class ConsoleWriter:
    """One log line: losses, lr, seconds an iteration and for data, time left, peak memory.

    Args:
        max_iter: where training ends.
    """

    def __init__(self, max_iter: int) -> None:
        self._max_iter = max_iter
        self._logger = logging.getLogger(__name__)

    def write(self, iteration: int, scalars: dict[str, float]) -> None:
        """Log a line of training; losses of earlier decoder layers are left out."""
        if "total_loss" not in scalars:
            return
        parts = [f"iter {iteration + 1}/{self._max_iter}"]
        losses = [n for n in scalars if "loss" in n and not n.rsplit("_", 1)[-1].isdigit()]
        # The total first, then the order in which the model names them.
        for name in sorted(losses, key=lambda n: n != "total_loss"):
            parts.append(f"{name} {scalars[name]:.4g}")
        if "lr" in scalars:
            parts.append(f"lr {scalars['lr']:.3g}")
        if "time" in scalars:
            parts.append(f"{scalars['time']:.3f} s/iter")
            parts.append(f"data {scalars.get('data_time', 0.0):.3f} s")
            left = scalars["time"] * (self._max_iter - iteration - 1)
            parts.append(f"eta {datetime.timedelta(seconds=round(left))}")
        parts.append(f"peak memory {peak_memory_mib():.0f} MiB")
        self._logger.info("  ".join(parts))

    def close(self) -> None:
        """Nothing to release."""


def peak_memory_mib() -> float:
    """Peak memory in MiB: of the GPU's tensors, or of this process where no GPU is used."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
