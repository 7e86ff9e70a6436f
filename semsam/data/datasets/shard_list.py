"""Which shards a folder has.

``shards.json``, where there is one, lists them, so that a missing one is noticed, and says what
they are of. Else an index without its shard tells of one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semsam.data.records import LostShardError
from semsam.utils.file_io import write_json
from semsam.utils.storage import as_path

MANIFEST = "shards.json"
#: What the writer of shards has packed so far; gone when all is.
PROGRESS = "progress.json"
#: Suffix of shards -> that of the index beside each.
INDEX_SUFFIXES = {".tsv": ".lineidx", ".tar": ".taridx"}
#: Of ``shards.json``; raised when what stands there changes its meaning.
_SCHEMA = 1
#: Keys of metadata whose own keys are numbers, which json turns into text.
_ID_MAP = "_dataset_id_to_contiguous_id"


@dataclass(frozen=True)
class ShardFile:
    """A whole shard.

    Attributes:
        name: of the file.
        rows: in it.
        bytes: of the file.
        sha256: of the file, hexadecimal.
    """

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What ``shards.json`` says.

    Attributes:
        shards: in order.
        source: the names of the datasets of which they are.
        metadata: of the dataset (``MetadataCatalog``); a file is named relative to the folder.
        left_out: what is in no shard, and why.
    """

    shards: list[ShardFile]
    source: list[str]
    metadata: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Of all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def suffix(self) -> str:
        """Of the shards, which are all of one kind."""
        return Path(self.shards[0].name).suffix


@contextlib.contextmanager
def reading(shard: Path) -> Iterator[None]:
    """Turn what reading a shard raises into a LostShardError that names it."""
    try:
        yield
    except OSError as error:
        raise LostShardError(
            f"the shard '{shard}' was there at first and is lost now ({error}); put it back, then "
            "go on from where this has stopped (--resume)"
        ) from error


class ShardedRows:
    """Rows of several shards, numbered through.

    Args:
        shard_sizes: rows of each shard.

    Attributes:
        shard_sizes: (S,) as given; samplers that read few shards at a time ask for it.
    """

    def __init__(self, shard_sizes: Sequence[int]) -> None:
        self.shard_sizes = np.asarray(shard_sizes, dtype=np.int64)
        self._ends = np.cumsum(self.shard_sizes)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def find(self, item: int) -> tuple[int, int]:
        """Shard, and row in it.

        Raises:
            IndexError: if there are not so many rows.
        """
        item = range(len(self))[item]
        shard = int(np.searchsorted(self._ends, item, side="right"))
        return shard, item - int(self._ends[shard] - self.shard_sizes[shard])


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Leave ``shards.json`` in a folder, atomically.

    Raises:
        TypeError: if the metadata hold what json cannot.
    """
    write_json(Path(folder) / MANIFEST, {"schema": _SCHEMA, **asdict(manifest)})


def read_manifest(folder: str | Path) -> Manifest:
    """What ``shards.json`` of a folder says.

    Args:
        folder: of shards; a path or a url.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or of another schema.
    """
    path = as_path(folder) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"'{path}' is missing: datasets/prepare_shards.py writes it; shards of SA-1B that were "
            "made elsewhere are read as sa1b_tsv://"
        )
    try:
        content = json.loads(path.read_bytes())
        if content["schema"] != _SCHEMA:
            raise ValueError(f"schema {content['schema']} is not {_SCHEMA}")
        metadata = {
            key: {int(number): index for number, index in value.items()}
            if key.endswith(_ID_MAP)
            else value
            for key, value in content["metadata"].items()
        }
        shards = [ShardFile(**shard) for shard in content["shards"]]
        if len({Path(shard.name).suffix for shard in shards}) != 1:
            raise ValueError("shards are of one kind, and there is one at least")
        return Manifest(shards, content["source"], metadata, content["left_out"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"'{path}' is no list of shards of this version ({reason}); pack them again"
        ) from error


def holds_shards(folder: str | Path) -> bool:
    """Whether a folder is one of TSV shards: it has a list of shards, or an index.

    A .tsv file alone is no sign of it: tables of all kinds lie among photos.
    """
    folder = Path(folder)
    return (folder / MANIFEST).is_file() or any(folder.glob(f"*{INDEX_SUFFIXES['.tsv']}"))


def list_shards(folder: str | Path, suffix: str = ".tsv") -> list[Path]:
    """The shards of a folder, in order of their names: those listed, else those found.

    Args:
        folder: where they lie; a path or a url.
        suffix: of their names, a key of ``INDEX_SUFFIXES``.

    Raises:
        FileNotFoundError: if the folder, a listed shard, the shard of an index, or every shard is
            missing.
        ValueError: if the shards are still being written, or their writer was stopped, or the list
            is damaged, or those listed are of another kind.
    """
    folder = as_path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"folder '{folder}' does not exist")
    if (folder / MANIFEST).is_file():
        shards = {folder / shard.name for shard in read_manifest(folder).shards}
        others = sorted(shard.name for shard in shards if shard.suffix != suffix)
        if others:
            raise ValueError(
                f"'{folder / MANIFEST}' lists '{others[0]}', which is no {suffix} file"
            )
    elif (folder / PROGRESS).is_file():
        raise ValueError(f"'{folder}' is packed in part; repeat the command that packs it")
    else:
        indices = (
            path
            for path in folder.glob(f"*{INDEX_SUFFIXES[suffix]}")
            if not path.name.endswith(".label.lineidx")
        )
        shards = {*folder.glob(f"*{suffix}"), *(index.with_suffix(suffix) for index in indices)}
    missing = sorted(str(shard) for shard in shards if not shard.is_file())
    if missing:
        raise FileNotFoundError(f"shards are missing: {', '.join(missing)}")
    if not shards:
        raise FileNotFoundError(f"no {suffix} file in '{folder}'")
    return sorted(shards)
