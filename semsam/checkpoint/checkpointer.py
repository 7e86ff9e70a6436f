"""Saving a training run so that it can be killed at any moment, and going on from there."""

from __future__ import annotations

import logging
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from semsam.utils import comm, elastic
from semsam.utils.env import rng_state, set_rng_state
from semsam.utils.file_io import atomic_write

from . import sharded
from .frozen import FrozenParts
from .loading import load_trained
from .snapshot import copy_to_cpu, tensor_bytes

logger = logging.getLogger(__name__)

_POINTER = "last_checkpoint"
_FINAL = "model_final"
_NUMBERED = re.compile(r"model_(\d+)(\.pth)?")
#: How long the ranks' threads wait for each other while they write.
_WRITING_TIMEOUT = timedelta(hours=2)


class Stateful(Protocol):
    """Whatever has to survive: optimizer, schedule, scaler, averaged weights."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Go on from it."""


class Checkpointer:
    """Writes and reads the checkpoints of a run.

    A file is a dict: ``model``, each of ``parts`` by name, what ``save`` is given, and ``ranks``,
    the random state and the parts of ``rank_parts`` of every process. Of a model that ranks share
    it is a folder (``semsam.checkpoint.sharded``). Either appears whole or not at all;
    ``last_checkpoint`` is written after what it names.

    ``save`` copies the state and leaves the writing to a thread. Use it in a ``with`` block, whose
    end waits for that::

        with checkpointer:
            for iteration in range(...):
                checkpointer.check()
                checkpointer.save(...)

    Args:
        model: what is trained; a DistributedDataParallel wrapper is looked through.
        save_dir: folder of the run.
        parts: the same on all ranks, or in parts on each, as the model; saved once.
        rank_parts: different on each rank.
        keep: numbered checkpoints that are kept; 0 for all.
        frozen: parts that files leave out; they are loaded from where they came from.
        shards: write folders, to which each rank adds what it holds; every rank makes this object.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str | Path,
        parts: Mapping[str, Stateful] | None = None,
        rank_parts: Mapping[str, Stateful] | None = None,
        keep: int = 0,
        frozen: FrozenParts | None = None,
        shards: bool = False,
    ) -> None:
        self.model: nn.Module = getattr(model, "module", model)
        self.save_dir = Path(save_dir)
        self.parts = dict(parts or {})
        self.rank_parts = dict(rank_parts or {})
        self.keep = keep
        self.frozen = frozen or FrozenParts()
        self.shards = shards
        # Collectives of the threads, apart from those of the steps.
        self._group = comm.patient_group(_WRITING_TIMEOUT) if shards else None
        # Python waits for such a thread before it ends, also after an error.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Checkpointer:
        """Nothing is being written yet."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *args: object) -> None:
        """Wait for what is being written; on all ranks, unless an error ends the block."""
        if kind is None:
            self.wait()
            comm.synchronize()
            return
        try:
            self.wait()
        except Exception:
            logger.exception("the last checkpoint could not be written")

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
        """Have the state of this moment written as ``<save_dir>/<name>`` and point to it.

        Every rank has to call this; it takes as long as a copy to CPU memory, and what is left of
        writing the one before. With ``shards``, ``model_final`` is also consolidated to a file.

        Args:
            name: ``model_0000999`` (counted by ``keep``) or any other.
            **extra: plain values and tensors to keep beside the states.

        Raises:
            OSError: as ``wait``, of the checkpoint before.
        """
        self.wait()
        own = {"rng": rng_state(), **{k: p.state_dict() for k, p in self.rank_parts.items()}}
        more = {"ranks": comm.gather(own), **extra}
        if not (self.shards or comm.is_main_process()):
            return
        if self.frozen.prefixes:
            if not self.frozen.sha256:
                self.frozen = replace(self.frozen, sha256=self.frozen.digest(self.model))
            more["frozen"] = self.frozen.as_dict()
        write: Callable[[], None]
        if self.shards:
            tensors, rest = sharded.collect_state(self.model, self.parts)
            kept = copy_to_cpu({k: v for k, v in tensors.items() if not self._leaves_out(k)})
            num_bytes = sum(comm.all_gather(tensor_bytes(kept)))
            write = partial(self._write_folder, name, kept, copy_to_cpu(rest | more), num_bytes)
        else:
            model = self.model.state_dict().items()
            states = {key: part.state_dict() for key, part in self.parts.items()}
            content = {"model": {k: v for k, v in model if not self.frozen.holds(k)}, **states}
            write = partial(self._write_file, name, copy_to_cpu(content | more))
        self._writing = self._thread.submit(write)

    def check(self) -> None:
        """Raise what ``wait`` would if writing has failed; does not wait."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait until what ``save`` was given is written.

        Raises:
            OSError: if there was no space for it; the checkpoints before stay as they are.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _leaves_out(self, tensor: str) -> bool:
        return self.frozen.holds(tensor.removeprefix("model/"))

    def _write_file(self, name: str, content: dict[str, Any]) -> None:
        path = self.save_dir / f"{name}.pth"
        with atomic_write(path, "wb", tensor_bytes(content)) as file:
            torch.save(content, file)
        self._point_to(path)

    def _write_folder(
        self, name: str, tensors: dict[str, torch.Tensor], rest: dict[str, Any], num_bytes: int
    ) -> None:
        path = self.save_dir / name
        sharded.write_folder(path, tensors, rest, num_bytes, self._group)
        if comm.is_main_process():
            # First: a run that is killed in between does its last steps again.
            if name == _FINAL:
                sharded.consolidate(path, path.with_suffix(".pth"))
            self._point_to(path)

    def _point_to(self, path: Path) -> None:
        with atomic_write(self.save_dir / _POINTER) as file:
            file.write(path.name)
        self._remove_old(path)
        logger.info("saved %s", path)

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
        content = self._read_folder(path) if path.is_dir() else self._read_file(path)
        for key, part in self.parts.items():
            if key not in content:
                raise RuntimeError(
                    f"{path} has no '{key}': it was saved with other SOLVER settings; "
                    "go on with those, or start anew from it with MODEL.WEIGHTS"
                )
            part.load_state_dict(content.pop(key))
        logger.info("resuming from %s", path)
        return content

    def _read_file(self, path: Path) -> dict[str, Any]:
        """Fill the model; returns the rest of the file."""
        if self._group is not None:
            raise RuntimeError(
                f"{path} was saved by a run with SOLVER.PARALLEL ddp: go on with that, or start "
                "anew from it with MODEL.WEIGHTS"
            )
        content = load_checkpoint(path)
        if content.get("frozen"):
            frozen = FrozenParts.from_dict(content.pop("frozen"))
            load_trained(self.model, content.pop("model"), frozen, str(path))
        else:
            self.model.load_state_dict(content.pop("model"))
        return content

    def _read_folder(self, path: Path) -> dict[str, Any]:
        """Fill this rank's part of the model; returns the rest of the folder."""
        content = sharded.read_rest(path)
        tensors = sharded.read_tensors(path, self.model, self.parts)
        held = {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}
        frozen = FrozenParts.from_dict(content.pop("frozen", FrozenParts().as_dict()))
        held |= {name: held[first] for name, first in content.pop("tied").items() if first in held}
        load_trained(self.model, held, frozen, str(path))
        for key in self.parts.keys() & content.keys():
            content[key] = sharded.restore_state(content[key], key, tensors)
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
            finals = [self.save_dir / name for name in (_FINAL, f"{_FINAL}.pth")]
            return [*[path for path in finals if path.exists()][:1], *numbered]
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
        for pattern in (".model_[0-9]*", f".{_FINAL}.*"):
            for temporary in self.save_dir.glob(pattern):
                _remove(temporary)
        number = _number(newest)
        if self.keep and number is not None:
            older = [p for p in self._numbered() if _number(p) <= number]
            for path in older[: -self.keep]:
                _remove(path)

    def _numbered(self) -> list[Path]:
        """Checkpoints with a number, lowest first."""
        paths = self.save_dir.glob("model_*")
        numbers = {number: p for p in paths if (number := _number(p)) is not None}
        return [numbers[number] for number in sorted(numbers)]


def _number(path: Path) -> int | None:
    match = _NUMBERED.fullmatch(path.name)
    return int(match[1]) if match else None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def begun_mark(save_dir: str | Path) -> str:
    """The mark (``elastic.note``) of a run whose workers resume from this folder when restarted."""
    return f"begun in {Path(save_dir)}"


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of tensors and plain values to the CPU; nothing in it is executed."""
    return torch.load(path, map_location="cpu", weights_only=True)


def find_fault(path: str | Path) -> str:
    """Return what is wrong with a checkpoint, or an empty string if every byte is right."""
    if Path(path).is_dir():
        return sharded.find_fault_of_folder(Path(path))
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        return str(error) or type(error).__name__
    return f"wrong checksum of {broken}" if broken else ""
