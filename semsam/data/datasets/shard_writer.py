"""Packs images into shards; a run that was stopped goes on where the last whole shard ends."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from semsam.data.datasets.shard_list import MANIFEST, PROGRESS, write_manifest
from semsam.data.datasets.tar import write_tar
from semsam.data.datasets.tsv import write_tsv
from semsam.data.records import BadRecordError
from semsam.utils.file_io import write_json

Item = TypeVar("Item")


@dataclass(frozen=True)
class ShardFormat:
    """How shards are stored.

    Attributes:
        suffix: of a shard's name.
        write: takes a shard's path and its rows, and writes it and its index, atomically.
    """

    suffix: str
    write: Callable[[Path, Iterable[Any]], object]


TSV = ShardFormat(".tsv", write_tsv)
TAR = ShardFormat(".tar", write_tar)


def pack_shards(
    items: Iterable[Item],
    make_row: Callable[[Item], Any],
    output: Path,
    rows_per_shard: int,
    shard_name: str,
    source: str,
    shard_format: ShardFormat = TSV,
) -> list[str]:
    """Write shards, their indices and the list of shards.

    Args:
        items: in an order that is the same at every run.
        make_row: what the format writes of an item, columns or members; an item for which it
            raises BadRecordError is left out.
        output: folder of the shards; holds no list of shards yet.
        rows_per_shard: rows of a shard; the last one may have fewer.
        shard_name: start of the shards' file names.
        source: what is packed, in words: a run continues another only if theirs are equal.
        shard_format: how they are stored.

    Returns:
        What was left out, and why; also by the runs that this one continues.

    Raises:
        ValueError: if the output is already packed, or was begun with another source or size.
        FileNotFoundError: if no item can be used.
    """
    if (output / MANIFEST).exists():
        raise ValueError(f"'{output / MANIFEST}' exists: the folder is packed; name another one")
    settings = {
        "source": source,
        "rows_per_shard": rows_per_shard,
        "name": shard_name,
        "format": shard_format.suffix,
    }
    state = _resume(output / PROGRESS, settings)
    left_out, shards, done = state["left_out"], state["shards"], state["done"]

    def rows() -> Iterator[Any]:
        nonlocal done
        pending = itertools.islice(items, done, None)
        total = len(items) if isinstance(items, Sized) else None
        for item in tqdm(pending, initial=done, total=total, unit="image", disable=None):
            done += 1
            try:
                yield make_row(item)
            except BadRecordError as error:
                left_out.append(str(error))

    stream = rows()
    for first in stream:
        shard = f"{shard_name}-{len(shards):05d}{shard_format.suffix}"
        part = itertools.chain([first], itertools.islice(stream, rows_per_shard - 1))
        shard_format.write(output / shard, part)
        shards.append(shard)
        write_json(output / PROGRESS, {**settings, **state, "done": done})
    if not shards:
        raise FileNotFoundError(f"no usable image in {source}")
    write_manifest(output, shards)
    (output / PROGRESS).unlink()
    return left_out


def _resume(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """``shards``, ``left_out`` and the number of items ``done`` of the run before, if there is one.

    Raises:
        ValueError: if its settings were others.
    """
    if not path.exists():
        return {"shards": [], "left_out": [], "done": 0}
    state = json.loads(path.read_text())
    for key, value in settings.items():
        if state.pop(key, None) != value:
            raise ValueError(
                f"'{path}' is of a run with another {key}; repeat it, or empty the folder"
            )
    return state
