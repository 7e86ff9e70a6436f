"""Rows of tab-separated columns in shards, each with an index of where its rows begin.

``NAME.tsv`` holds one row a line; ``NAME.lineidx`` one line a row: the row's offset in bytes, and
perhaps, after white space, its length, which is not needed and not read. ``shards.json``, where
there is one, lists the shards, so that a missing one is noticed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semsam.data.records import LostShardError, blame
from semsam.utils.file_io import atomic_write, write_json

MANIFEST = "shards.json"
#: What the writer of shards has packed so far; gone when all is.
PROGRESS = "progress.json"


@dataclass(frozen=True, slots=True)
class TsvRow:
    """Where a row lies: enough to read it in any process, without the index.

    Attributes:
        path: the file with the row.
        number: of the row in the file, from 0.
        offset: of its first byte.
        num_bytes: its length, with the line break.
    """

    path: Path
    number: int
    offset: int
    num_bytes: int

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"

    def read(self) -> list[bytes]:
        """Its columns.

        Raises:
            LostShardError: if the file cannot be opened any more.
            ValueError: if the row does not begin and end where the index has it.
        """
        try:
            opened = self.path.open("rb")
        except OSError as error:
            raise LostShardError(
                f"the shard '{self.path}' was there at first and is lost now ({error}); put it "
                "back, then go on from where this has stopped (--resume)"
            ) from error
        with opened as file:
            file.seek(self.offset)
            line = file.read(self.num_bytes)
            # The last row of a file may lack its line break.
            is_row = line.find(b"\n") == len(line) - 1 or (b"\n" not in line and not file.read(1))
        if len(line) < self.num_bytes:
            raise ValueError(f"'{self.path}' ends in row {self.number}: it was cut")
        if not is_row:
            raise ValueError(f"the index of '{self.path}' counts no bytes; write it again")
        return line.rstrip(b"\r\n").split(b"\t")


class TsvFile:
    """The rows of one file, read one at a time.

    A file is opened for each read: forked workers then share no position, and a thousand shards
    need no thousand handles.

    Args:
        path: the file with the rows.
        index: its index; the path with the suffix ``.lineidx`` if None.

    Raises:
        FileNotFoundError: if either is missing.
        ValueError: if the index is damaged or belongs to another file.
    """

    def __init__(self, path: str | Path, index: str | Path | None = None) -> None:
        self.path = Path(path)
        index = Path(index) if index is not None else self.path.with_suffix(".lineidx")
        for file in (self.path, index):
            if not file.is_file():
                raise FileNotFoundError(f"'{file}' is missing")
        self._offsets = np.append(_read_index(index), self.path.stat().st_size)
        if self._offsets[0] != 0 or (np.diff(self._offsets) <= 0).any():
            raise ValueError(f"'{index}' does not fit '{self.path}'; write the index again")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, item: int) -> list[bytes]:
        """Columns of one row.

        Raises:
            ValueError: if the index leads into the middle of a row.
        """
        return self.row(item).read()

    def row(self, item: int) -> TsvRow:
        """Where a row lies; nothing is read."""
        number = range(len(self))[item]
        begin, end = map(int, self._offsets[number : number + 2])
        return TsvRow(self.path, number, begin, end - begin)

    def read_starts(self, num_bytes: int) -> Iterator[bytes]:
        """The first bytes of each row, at most so many, without reading the megabytes behind."""
        lengths = np.minimum(np.diff(self._offsets), num_bytes).tolist()
        with self.path.open("rb", buffering=0) as file:
            for offset, length in zip(self._offsets.tolist(), lengths, strict=False):
                file.seek(offset)
                yield file.read(length)


def _read_index(path: Path) -> np.ndarray:
    text = path.read_text()
    if not text.strip():
        raise ValueError(f"'{path}' is empty")
    columns = len(text.split("\n", 1)[0].split())
    try:
        return np.array(text.split(), dtype=np.int64)[::columns]
    except ValueError as error:
        raise ValueError(f"'{path}' is not a list of offsets: {error}") from error


class TsvRecords:
    """Records of shards whose rows are name, json of the annotations, base64 image.

    Where ``NAME.label`` lies beside ``NAME.tsv`` (with ``NAME.label.lineidx``), the last column of
    its rows replaces the annotations.

    Args:
        folder: where the shards lie.
        parse: turns the json into keys of the record; may raise what ``records.blame`` knows.

    Raises:
        FileNotFoundError: if a shard or an index is missing.
        ValueError: if an index or a label file does not fit its shard.
    """

    def __init__(self, folder: str | Path, parse: Callable[[bytes], dict[str, Any]]) -> None:
        self.shards = [TsvFile(path) for path in list_shards(folder)]
        self.labels = [find_labels(shard) for shard in self.shards]
        self._parse = parse
        self._ends = np.cumsum([len(shard) for shard in self.shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, item: int) -> dict[str, Any]:
        """One record.

        Raises:
            BadRecordError: if the row does not parse.
        """
        number, row = self._find(item)
        where = f"{self.shards[number].path}:{row}"
        labels = self.labels[number]
        with blame(where):
            name, annotations, image = read_columns(
                self.shards[number].row(row), None if labels is None else labels.row(row)
            )
            return {
                "file_name": where,
                "image_id": name.decode(),
                "image_bytes": image,
                **self._parse(annotations),
            }

    def _find(self, item: int) -> tuple[int, int]:
        """Shard and row in it."""
        item = range(len(self))[item]
        number = int(np.searchsorted(self._ends, item, side="right"))
        return number, item - int(self._ends[number]) + len(self.shards[number])


def read_columns(row: TsvRow, labels: TsvRow | None = None) -> tuple[bytes, bytes, bytes]:
    """What a row of an image holds.

    Args:
        row: of a shard whose rows are name, json of the annotations, base64 image.
        labels: the row of its label file, if it has one.

    Returns:
        The name, the json, which is the label file's where there is one, and the image file.

    Raises:
        OSError, ValueError: if it has other columns or cannot be read.
    """
    name, annotations, image = row.read()
    if labels is not None:
        annotations = labels.read()[-1]
    return name, annotations, base64.b64decode(image, validate=True)


def find_labels(shard: TsvFile) -> TsvFile | None:
    """The label file of a shard, ``NAME.label`` beside ``NAME.tsv``; None if it has none.

    Raises:
        FileNotFoundError: if its index is missing.
        ValueError: if the index is damaged, or it has another number of rows than the shard.
    """
    path = shard.path.with_suffix(".label")
    if not path.is_file():
        return None
    labels = TsvFile(path, path.with_name(f"{path.name}.lineidx"))
    if len(labels) != len(shard):
        raise ValueError(f"'{path}' has {len(labels)} rows, '{shard.path}' has {len(shard)}")
    return labels


def write_tsv(path: str | Path, rows: Iterable[Sequence[bytes]]) -> int:
    """Write a file and its index; both appear when they are whole, the index last.

    Args:
        path: the file, usually ``*.tsv``; the index takes the suffix ``.lineidx``.
        rows: columns of each row, without tabs or line breaks.

    Returns:
        How many rows were written.

    Raises:
        ValueError: if a column holds a tab or a line break.
    """
    offsets: list[str] = []
    position = 0
    with atomic_write(path, "wb") as file:
        for columns in rows:
            if any(mark in column for column in columns for mark in (b"\t", b"\n", b"\r")):
                raise ValueError(f"row {len(offsets)} of '{path}' has a tab or line break inside")
            line = b"\t".join(columns) + b"\n"
            file.write(line)
            offsets.append(f"{position}\t{len(line)}\n")
            position += len(line)
    with atomic_write(Path(path).with_suffix(".lineidx")) as file:
        file.writelines(offsets)
    return len(offsets)


def write_manifest(folder: str | Path, shards: Sequence[str]) -> None:
    """List the shards of a folder by file name, so that a missing one is noticed."""
    write_json(Path(folder) / MANIFEST, {"shards": list(shards)})


def holds_shards(folder: str | Path) -> bool:
    """Whether a folder is one of shards: it has a list of shards, or an index.

    A .tsv file alone is no sign of it: tables of all kinds lie among photos.
    """
    folder = Path(folder)
    return (folder / MANIFEST).is_file() or any(folder.glob("*.lineidx"))


def list_shards(folder: str | Path) -> list[Path]:
    """The shards of a folder, in order of their names: those listed, else those found.

    Raises:
        FileNotFoundError: if the folder, a listed shard, the shard of an index, or every shard is
            missing.
        ValueError: if the shards are still being written, or their writer was stopped.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"folder '{folder}' does not exist")
    if (folder / MANIFEST).is_file():
        shards = {folder / name for name in json.loads((folder / MANIFEST).read_text())["shards"]}
    elif (folder / PROGRESS).is_file():
        raise ValueError(f"'{folder}' is packed in part; repeat the command that packs it")
    else:
        indices = (p for p in folder.glob("*.lineidx") if not p.name.endswith(".label.lineidx"))
        shards = {*folder.glob("*.tsv"), *(index.with_suffix(".tsv") for index in indices)}
    missing = sorted(str(shard) for shard in shards if not shard.is_file())
    if missing:
        raise FileNotFoundError(f"shards are missing: {', '.join(missing)}")
    if not shards:
        raise FileNotFoundError(f"no .tsv file in '{folder}'")
    return sorted(shards)
