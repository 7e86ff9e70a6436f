"""Saving a training run so that it can be killed at any moment, and going on from there."""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from semsam.utils import comm, elastic
from semsam.utils.env import rng_state, set_rng_state
from semsam.utils.file_io import atomic_write

from .frozen import FrozenParts
from .loading import load_trained

logger = logging.getLogger(__name__)

_POINTER = "last_checkpoint"
_NUMBERED = re.compile(r"model_(\d+)\.pth")


class Stateful(Protocol):
    """Whatever has to survive: optimizer, schedule, scaler, averaged weights."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Go on from it."""


class Checkpointer:
    """Writes and reads the checkpoints of a run.

    A file is a dict: ``model``, each of ``parts`` by name, what ``save`` is given, and ``ranks``,
    the random state and the parts of ``rank_parts`` of every process. Files appear whole or not at
    all; ``last_checkpoint`` is written after the file that it names.

    Args:
        model: what is trained; a DistributedDataParallel wrapper is looked through.
        save_dir: folder of the run.
        parts: the same on all ranks, saved once.
        rank_parts: different on each rank.
        keep: numbered checkpoints that are kept; 0 for all.
        frozen: parts that files leave out; they are loaded from where they came from.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str | Path,
        parts: Mapping[str, Stateful] | None = None,
        rank_parts: Mapping[str, Stateful] | None = None,
        keep: int = 0,
        frozen: FrozenParts | None = None,
    ) -> None:
        self.model: nn.Module = getattr(model, "module", model)
        self.save_dir = Path(save_dir)
        self.parts = dict(parts or {})
        self.rank_parts = dict(rank_parts or {})
        self.keep = keep
        self.frozen = frozen or FrozenParts()

    def begin_run(self) -> None:
        """Start anew in ``save_dir``: what an earlier run left there is not resumed any more."""
        if not comm.is_main_process():
            return
        if self._candidates():
            logger.warning(
                "%s holds an earlier run, which is overwritten now; --resume would have gone on "
                "from it",
                self.save_dir,
            )
        with atomic_write(self.save_dir / _POINTER) as file:
            file.write("")
        elastic.note(begun_mark(self.save_dir))

    def save(self, name: str, **extra: Any) -> None:
        """Write ``<save_dir>/<name>.pth`` and point to it; every rank has to call this.

        Args:
            name: ``model_0000999`` (counted by ``keep``) or any other.
            **extra: plain values and tensors to keep beside the states.

        Raises:
            OSError: if there is no space for the file; those before it stay as they are.
        """
        own = {"rng": rng_state(), **{k: p.state_dict() for k, p in self.rank_parts.items()}}
        ranks = comm.gather(own)
        if comm.is_main_process():
            states = {key: part.state_dict() for key, part in self.parts.items()}
            model = self.model.state_dict()
            content = {"model": model, **states, "ranks": ranks, **extra}
            if self.frozen.prefixes:
                if not self.frozen.sha256:
                    self.frozen = replace(self.frozen, sha256=self.frozen.digest(self.model))
                content["model"] = {k: v for k, v in model.items() if not self.frozen.holds(k)}
                content["frozen"] = self.frozen.as_dict()
            path = self.save_dir / f"{name}.pth"
            with atomic_write(path, "wb", tensor_bytes(content)) as file:
                torch.save(content, file)
            with atomic_write(self.save_dir / _POINTER) as file:
                file.write(path.name)
            self._remove_old(path)
            logger.info("saved %s", path)
        comm.synchronize()

    def resume(self) -> dict[str, Any] | None:
        """Go on from the newest whole checkpoint of ``save_dir``.

        Returns:
            Everything in the file that is not the state of a part, ``ranks`` included (restore the
            latter with ``restore_rank`` once nothing more will draw random numbers); None if there
            is no checkpoint yet.

        Raises:
            RuntimeError: if there are checkpoints but none is whole.
        """
        path = comm.broadcast(self._newest_whole() if comm.is_main_process() else None)
        if path is None:
            logger.info("no checkpoint in %s: starting from the beginning", self.save_dir)
            return None
        content = load_checkpoint(path)
        if content.get("frozen"):
            frozen = FrozenParts.from_dict(content.pop("frozen"))
            load_trained(self.model, content.pop("model"), frozen, str(path))
        else:
            self.model.load_state_dict(content.pop("model"))
        for key, part in self.parts.items():
            if key not in content:
                raise RuntimeError(
                    f"{path} has no '{key}': it was saved with other SOLVER settings; "
                    "go on with those, or start anew from it with MODEL.WEIGHTS"
                )
            part.load_state_dict(content.pop(key))
        logger.info("resuming from %s", path)
        return content

    def restore_rank(self, ranks: list[dict[str, Any]]) -> None:
        """Restore what differs between processes, from ``ranks`` of a checkpoint."""
        if len(ranks) != comm.get_world_size():
            logger.warning(
                "the checkpoint was written by %d processes, now there are %d: "
                "random draws will differ from those of an unbroken run",
                len(ranks),
                comm.get_world_size(),
            )
            return
        own = ranks[comm.get_rank()]
        for key, part in self.rank_parts.items():
            part.load_state_dict(own[key])
        set_rng_state(own["rng"])

    def _candidates(self) -> list[Path]:
        """Checkpoints, newest first."""
        numbered = self._numbered()[::-1]
        pointer = self.save_dir / _POINTER
        if not pointer.is_file():
            final = self.save_dir / "model_final.pth"
            return [final, *numbered] if final.is_file() else numbered
        name = pointer.read_text().strip()
        if not name:  # a run that has begun and saved nothing yet
            return []
        last = self.save_dir / name
        # A file newer than the one pointed to is left from another run in this folder, or its
        # pointer was about to be written: the one pointed to is right in either case.
        older = [p for p in numbered if _number(last) is None or _number(p) < _number(last)]
        return [last, *older]

    def _newest_whole(self) -> Path | None:
        faults = []
        for path in self._candidates():
            if not (fault := find_fault(path)):
                return path
            logger.warning("%s is damaged (%s): trying the one before", path, fault)
            faults.append(f"{path.name} ({fault})")
        if faults:
            raise RuntimeError(
                f"no checkpoint in {self.save_dir} is whole: {', '.join(faults)}; start without "
                "--resume"
            )
        return None

    def _remove_old(self, newest: Path) -> None:
        # Left by a process that was killed while it wrote.
        for temporary in self.save_dir.glob(".model_*.pth.*"):
            temporary.unlink(missing_ok=True)
        number = _number(newest)
        if self.keep and number is not None:
            older = [p for p in self._numbered() if _number(p) <= number]
            for path in older[: -self.keep]:
                path.unlink(missing_ok=True)

    def _numbered(self) -> list[Path]:
        """Checkpoints with a number, lowest first."""
        paths = self.save_dir.glob("model_*.pth")
        numbers = {number: p for p in paths if (number := _number(p)) is not None}
        return [numbers[number] for number in sorted(numbers)]


def _number(path: Path) -> int | None:
    match = _NUMBERED.fullmatch(path.name)
    return int(match[1]) if match else None


def begun_mark(save_dir: str | Path) -> str:
    """The mark (``elastic.note``) of a run whose workers resume from this folder when restarted."""
    return f"begun in {Path(save_dir)}"


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of tensors and plain values to the CPU; nothing in it is executed."""
    return torch.load(path, map_location="cpu", weights_only=True)


def tensor_bytes(value: Any) -> int:
    """Bytes of all tensors in nested dicts, lists and tuples; a shared storage counts once."""
    sizes: dict[int, int] = {}
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        elif isinstance(item, Mapping):
            left.extend(item.values())
        elif isinstance(item, list | tuple):
            left.extend(item)
    return sum(sizes.values())


def find_fault(path: str | Path) -> str:
    """Return what is wrong with a checkpoint file, or an empty string if every byte is right."""
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        return str(error) or type(error).__name__
    return f"wrong checksum of {broken}" if broken else ""
