"""Checkpoints in which each rank writes its part: a folder of ``torch.distributed.checkpoint``.

Beside what torch writes (``*.distcp``, ``.metadata``), which holds every tensor whole or in parts
under a name such as ``model/decoder.norm.weight`` or ``optimizer/state/0/exp_avg``, there are
``rest.pth``, everything that is no tensor, and ``checksums.json``, size and CRC-32 of each file. A
folder can be read by any number of ranks. torch pickles ``.metadata``, so that only folders that
one trusts may be read.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from semsam.utils import comm
from semsam.utils.file_io import atomic_write, is_no_space, no_space

# Each rank reads on its own, as it should.
warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")

_REST = "rest.pth"
_SUMS = "checksums.json"
_TENSOR = "<tensor>"


def collect_state(
    model: nn.Module, parts: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Take the state of a model and of what trains it apart into tensors and the rest.

    A weight with several names is held under the first; ``rest["tied"]`` has the others.

    Returns:
        Name -> tensor, of which a rank may hold a part, and plain values.
    """
    names: dict[int, str] = {}
    tied = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first = names.setdefault(id(parameter), name)
        if first != name:
            tied[name] = first
    tensors = {f"model/{k}": v for k, v in model.state_dict().items() if k not in tied}
    rest: dict[str, Any] = {"tied": tied}
    for key, part in parts.items():
        rest[key] = _without_tensors(part.state_dict(), key, tensors)
    return tensors, rest


def write_folder(
    folder: Path, tensors: dict[str, Tensor], rest: Any, num_bytes: int, group: Any = None
) -> None:
    """Write a checkpoint that appears under ``folder`` when it is whole; every rank calls it.

    Args:
        folder: on storage that all ranks share.
        tensors: of ``collect_state``, or a copy.
        rest: plain values; those of the first rank are written.
        num_bytes: of the tensors of all ranks.
        group: of all ranks, for nothing else at the same time; None for one process.

    Raises:
        OSError: with errno ENOSPC, if there is no space.
    """
    aside = partial_path(folder)
    is_main = comm.is_main_process()
    folder.parent.mkdir(parents=True, exist_ok=True)
    if is_main:
        shutil.rmtree(aside, ignore_errors=True)
    free = shutil.disk_usage(folder.parent).free
    if num_bytes > free:
        raise no_space(folder, num_bytes)
    with _plain_errors(folder, num_bytes):
        # Of a tensor that all ranks have whole, such as a buffer, the first rank's counts.
        planner = dcp.DefaultSavePlanner(dedup_save_to_lowest_rank=True)
        dcp.save(
            tensors,
            storage_writer=dcp.FileSystemWriter(aside),
            planner=planner,
            process_group=group,
            no_dist=group is None,
        )
        if is_main:
            with atomic_write(aside / _REST, "wb") as file:
                torch.save(rest, file)
        own = [aside / ".metadata", aside / _REST] if is_main else []
        own += aside.glob(f"__{comm.get_rank()}_*.distcp")
        sums: list[Any] = [{path.name: _size_and_sum(path) for path in own}]
        if group is not None:
            sums *= dist.get_world_size(group)
            dist.all_gather_object(sums, sums[0], group)
        if is_main:
            with atomic_write(aside / _SUMS) as file:
                json.dump({name: found for part in sums for name, found in part.items()}, file)
            # From an earlier run.
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(aside, folder)


def partial_path(folder: Path) -> Path:
    """Where a checkpoint lies until it is whole."""
    return folder.with_name(f".{folder.name}.partial")


def find_fault_of_folder(folder: Path) -> str:
    """Return what is wrong with a checkpoint, or an empty string if every byte is right."""
    try:
        sums = json.loads((folder / _SUMS).read_text())
        for name, expected in sums.items():
            if _size_and_sum(folder / name) != expected:
                return f"wrong size or checksum of {name}"
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def read_rest(folder: Path) -> dict[str, Any]:
    """What a checkpoint holds besides tensors."""
    return torch.load(folder / _REST, map_location="cpu", weights_only=True)


def read_tensors(folder: Path, model: nn.Module, parts: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read this rank's part of each tensor of a model and of what trains it; changes neither.

    Returns:
        Name -> tensor, in parts where the model is.
    """
    alike, _ = collect_state(model, parts)
    for key, part in parts.items():
        if isinstance(part, torch.optim.Optimizer):
            # It has no state before its first step; most of it is split as its parameters are.
            parameters = [p for group in part.param_groups for p in group["params"]]
            alike |= {f"{key}/state/{i}": p for i, p in enumerate(parameters)}
    targets = {}
    for name, saved in _saved_tensors(folder).items():
        if name.partition("/")[0] not in ("model", *parts):
            continue
        like = alike.get(name, alike.get(name.rpartition("/")[0]))
        if like is not None and like.shape == saved.size:
            targets[name] = torch.zeros_like(like, dtype=saved.properties.dtype)
        else:
            targets[name] = torch.zeros(saved.size, dtype=saved.properties.dtype)
    with _plain_errors(folder):
        dcp.load(targets, storage_reader=dcp.FileSystemReader(folder), no_dist=True)
    return targets


def restore_state(rest: Any, path: str, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of taking tensors out of the state of the part ``path``."""
    if isinstance(rest, dict):
        return {key: restore_state(one, f"{path}/{key}", tensors) for key, one in rest.items()}
    if isinstance(rest, list | tuple):
        return type(rest)(restore_state(v, f"{path}/{i}", tensors) for i, v in enumerate(rest))
    return tensors[path] if isinstance(rest, str) and rest == _TENSOR else rest


def consolidate(folder: str | Path, file: str | Path) -> None:
    """Write the model of a checkpoint folder as one file, as ``load_weights`` reads it.

    Raises:
        ValueError: if there is no whole checkpoint in the folder.
        OSError: with errno ENOSPC, if there is no space for the file.
    """
    folder = Path(folder)
    if fault := find_fault_of_folder(folder):
        raise ValueError(f"'{folder}' holds no whole checkpoint: {fault}")
    saved = _saved_tensors(folder).items()
    tensors = {k: torch.empty(v.size, dtype=v.properties.dtype) for k, v in saved if _of_model(k)}
    with _plain_errors(folder):
        dcp.load(tensors, storage_reader=dcp.FileSystemReader(folder), no_dist=True)
    model = {name.removeprefix("model/"): value for name, value in tensors.items()}
    rest = read_rest(folder)
    model |= {name: model[first] for name, first in rest["tied"].items() if first in model}
    content: dict[str, Any] = {"model": model}
    content |= {key: rest[key] for key in ("frozen", "iteration") if key in rest}
    with atomic_write(file, "wb", sum(v.nbytes for v in tensors.values())) as opened:
        torch.save(content, opened)


def _of_model(name: str) -> bool:
    return name.startswith("model/")


def _without_tensors(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[path] = value
        return _TENSOR
    if isinstance(value, Mapping):
        return {key: _without_tensors(one, f"{path}/{key}", tensors) for key, one in value.items()}
    if isinstance(value, list | tuple):
        items = (_without_tensors(v, f"{path}/{i}", tensors) for i, v in enumerate(value))
        return type(value)(items)
    return value


def _saved_tensors(folder: Path) -> dict[str, TensorStorageMetadata]:
    saved = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata.items()
    return {name: entry for name, entry in saved if isinstance(entry, TensorStorageMetadata)}


def _size_and_sum(path: Path) -> list[int]:
    size, total = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(2**22):
            size, total = size + len(chunk), zlib.crc32(chunk, total)
    return [size, total]


@contextlib.contextmanager
def _plain_errors(folder: Path, num_bytes: int | None = None) -> Iterator[None]:
    """Turn what torch raises for failures of ranks, which is no Exception, into errors."""
    try:
        yield
    except CheckpointException as error:
        causes = [cause for cause, _ in error.failures.values()]
        if any(is_no_space(cause) for cause in causes):
            raise no_space(folder, num_bytes) from error
        shown = "; ".join(f"rank {rank}: {e[0]}" for rank, e in error.failures.items())
        raise RuntimeError(f"'{folder}': {shown}") from error
    except OSError as error:
        if is_no_space(error):
            raise no_space(folder, num_bytes) from error
        raise
