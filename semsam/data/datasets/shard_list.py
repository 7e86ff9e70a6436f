"""Which shards a folder has.

``shards.json``, where there is one, lists them, so that a missing one is noticed. Else an index
without its shard tells of one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semsam.utils.file_io import write_json

MANIFEST = "shards.json"
#: What the writer of shards has packed so far; gone when all is.
PROGRESS = "progress.json"
#: Suffix of shards -> that of the index beside each.
INDEX_SUFFIXES = {".tsv": ".lineidx", ".tar": ".taridx"}


class RowNumbers:
    """Rows of several shards, numbered through.

    Args:
        lengths: rows of each shard.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths = np.asarray(lengths, dtype=np.int64)
        self._ends = np.cumsum(self._lengths)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def find(self, item: int) -> tuple[int, int]:
        """Shard, and row in it.

        Raises:
            IndexError: if there are not so many rows.
        """
        item = range(len(self))[item]
        shard = int(np.searchsorted(self._ends, item, side="right"))
        return shard, item - int(self._ends[shard] - self._lengths[shard])


def write_manifest(folder: str | Path, shards: Sequence[str]) -> None:
    """List the shards of a folder by file name, so that a missing one is noticed."""
    write_json(Path(folder) / MANIFEST, {"shards": list(shards)})


def holds_shards(folder: str | Path) -> bool:
    """Whether a folder is one of TSV shards: it has a list of shards, or an index.

    A .tsv file alone is no sign of it: tables of all kinds lie among photos.
    """
    folder = Path(folder)
    return (folder / MANIFEST).is_file() or any(folder.glob(f"*{INDEX_SUFFIXES['.tsv']}"))


def list_shards(folder: str | Path, suffix: str = ".tsv") -> list[Path]:
    """The shards of a folder, in order of their names: those listed, else those found.

    Args:
        folder: where they lie.
        suffix: of their names, a key of ``INDEX_SUFFIXES``.

    Raises:
        FileNotFoundError: if the folder, a listed shard, the shard of an index, or every shard is
            missing.
        ValueError: if the shards are still being written, or their writer was stopped, or the
            listed ones are of another kind.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"folder '{folder}' does not exist")
    if (folder / MANIFEST).is_file():
        shards = {folder / name for name in json.loads((folder / MANIFEST).read_text())["shards"]}
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
