"""Packs images into shards, with many processes; a run that was stopped goes on.

Shard k holds items k R to (k + 1) R - 1, less those left out, whoever writes it and whenever. When
it is whole a json beside it says so: a run goes on with the shards that have none.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from semsam.data.datasets.shard_list import (
    MANIFEST,
    PROGRESS,
    Manifest,
    ShardFile,
    read_manifest,
    write_manifest,
)
from semsam.data.datasets.tar import write_tar
from semsam.data.datasets.tsv import write_tsv
from semsam.data.records import BadRecordError
from semsam.utils.file_io import write_json
from semsam.utils.workers import map_in_processes

Item_co = TypeVar("Item_co", covariant=True)

logger = logging.getLogger(__name__)


class Items(Protocol[Item_co]):
    """What is packed: read by number, in any order, in any process."""

    def __len__(self) -> int: ...

    def __getitem__(self, item: int, /) -> Item_co: ...


@dataclass(frozen=True)
class ShardFormat:
    """How shards are stored.

    Attributes:
        suffix: of a shard's name.
        write: takes a shard's path and its rows, and writes it and its index, atomically; returns
            the number of rows.
    """

    suffix: str
    write: Callable[[Path, Iterable[Any]], int]


TSV = ShardFormat(".tsv", write_tsv)
TAR = ShardFormat(".tar", write_tar)
#: By the names that scripts give them.
FORMATS = {"tsv": TSV, "webdataset": TAR}


@dataclass(frozen=True)
class _Part:
    """A shard's json: the shard, unless all of its items were left out, and these."""

    shard: ShardFile | None
    left_out: list[str]


def pack_shards(
    items: Items[Any],
    make_row: Callable[[Any], Any],
    output: Path,
    rows_per_shard: int,
    shard_name: str,
    source: Sequence[str],
    shard_format: ShardFormat = TSV,
    num_workers: int = 1,
    metadata: dict[str, Any] | None = None,
    write_files: Callable[[], None] | None = None,
) -> Manifest:
    """Write shards, their indices and the list of shards.

    Shards are the same, byte for byte, whatever the number of workers, and however often the run
    was stopped. Two runs at the same time would disturb each other.

    Args:
        items: in an order that is the same at every run.
        make_row: what the format writes of an item, columns or members; None for no row. An item
            for which it, or reading the item, raises BadRecordError is left out.
        output: folder of the shards; holds no list of shards yet.
        rows_per_shard: items of a shard; the last one may have fewer.
        shard_name: start of the shards' file names.
        source: what is packed: a run continues another only if theirs are equal.
        shard_format: how they are stored.
        num_workers: processes, copies of this one.
        metadata: of the dataset.
        write_files: leaves further files in the folder, atomically.

    Returns:
        What the list of shards says.

    Raises:
        ValueError: if the output is already packed, or was begun with other arguments; if a number
            is below 1.
        FileNotFoundError: if no item can be used.
        OSError: if a file cannot be written: whole shards stay.
        RuntimeError: if a worker dies: whole shards stay.
    """
    if min(rows_per_shard, num_workers) < 1:
        raise ValueError(f"{rows_per_shard} rows a shard and {num_workers} workers: 1 at least")
    settings = {
        "source": list(source),
        "images": len(items),
        "rows_per_shard": rows_per_shard,
        "name": shard_name,
        "format": shard_format.suffix,
    }
    number = -(-len(items) // rows_per_shard)
    digits = max(5, len(str(number - 1)))
    names = [f"{shard_name}-{shard:0{digits}d}{shard_format.suffix}" for shard in range(number)]
    listed = output / MANIFEST
    if listed.exists():
        if not (output / PROGRESS).exists():
            raise ValueError(f"'{listed}' exists: the folder is packed; name another one")
        # All but the end was done.
        _check_settings(output, settings)
        _tidy(output, names)
        return read_manifest(output)
    _check_settings(output, settings)
    write_json(output / PROGRESS, settings)
    for start in (f"{shard_name}-", PROGRESS, MANIFEST):
        # What ``atomic_write`` leaves where a process is killed in it.
        for unfinished in output.glob(f".{start}*"):
            unfinished.unlink()
    if write_files is not None:
        write_files()

    def numbers_of(shard: int) -> range:
        return range(shard * rows_per_shard, min((shard + 1) * rows_per_shard, len(items)))

    def write(shard: int) -> _Part:
        path = output / names[shard]
        return _write_shard(path, shard_format, numbers_of(shard), items, make_row)

    parts = {shard: _read_part(output / name) for shard, name in enumerate(names)}
    missing = [shard for shard, part in parts.items() if part is None]
    with tqdm(total=len(items), unit="image", disable=None) as bar:
        bar.update(len(items) - sum(len(numbers_of(shard)) for shard in missing))
        for shard, part in map_in_processes(write, missing, num_workers):
            parts[shard] = part
            bar.update(len(numbers_of(shard)))
    done = [part for part in parts.values() if part is not None]
    left_out = [reason for part in done for reason in part.left_out]
    shards = [part.shard for part in done if part.shard is not None]
    if not shards:
        first = f", first {left_out[0]}" if left_out else ""
        raise FileNotFoundError(f"no usable image in {', '.join(source)}{first}")
    manifest = Manifest(shards, list(source), metadata or {}, left_out)
    write_manifest(output, manifest)
    _tidy(output, names)
    return manifest


def file_sha256(path: Path) -> str:
    """The checksum of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_shard(path: Path, rows: int) -> ShardFile:
    """A whole shard with so many rows; its file is read."""
    return ShardFile(path.name, rows, path.stat().st_size, file_sha256(path))


def _check_settings(output: Path, settings: dict[str, Any]) -> None:
    """Raise ValueError if the run before had others."""
    path = output / PROGRESS
    if not path.exists():
        return
    before = json.loads(path.read_text())
    for key, value in settings.items():
        if before.get(key) != value:
            raise ValueError(
                f"'{path}' is of a run with another {key}, {before.get(key)}; repeat it, or empty "
                "the folder"
            )


def _write_shard(
    path: Path,
    shard_format: ShardFormat,
    numbers: Sequence[int],
    items: Items[Any],
    make_row: Callable[[Any], Any],
) -> _Part:
    left_out: list[str] = []

    def rows() -> Iterator[Any]:
        for number in numbers:
            try:
                row = make_row(items[number])
            except BadRecordError as error:
                left_out.append(str(error))
            else:
                if row is not None:
                    yield row

    stream = rows()
    shard = None
    for first in stream:
        number = shard_format.write(path, chain([first], stream))
        shard = describe_shard(path, number)
    part = _Part(shard, left_out)
    write_json(_part_path(path), asdict(part))
    return part


def _part_path(shard: Path) -> Path:
    return shard.with_name(f"{shard.name}.json")


def _read_part(path: Path) -> _Part | None:
    """What the run before has of a shard; None if it is not whole."""
    if not _part_path(path).is_file():
        return None
    content = json.loads(_part_path(path).read_text())
    shard = ShardFile(**content["shard"]) if content["shard"] else None
    if shard and not (path.is_file() and path.stat().st_size == shard.bytes):
        return None
    return _Part(shard, content["left_out"])


def _tidy(output: Path, names: Iterable[str]) -> None:
    """Remove what a run needs to go on; the sign that it has to goes last."""
    for name in names:
        _part_path(output / name).unlink(missing_ok=True)
    (output / PROGRESS).unlink()
