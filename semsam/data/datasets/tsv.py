"""Rows of tab-separated columns in shards, each with an index of where its rows begin.

``NAME.tsv`` holds one row a line; ``NAME.lineidx`` one line a row: the row's offset in bytes, and
perhaps, after white space, its length, which is not needed and not read.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semsam.data.datasets.shard_list import ShardedRows, list_shards, reading
from semsam.data.records import blame
from semsam.utils.file_io import atomic_write
from semsam.utils.storage import RangeCache, as_path, is_remote, read_range

#: Shards that are opened side by side: far away each takes a few round trips.
_OPENED_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class TsvRow:
    """Where a row lies: enough to read it in any process, without the index.

    Attributes:
        path: the file with the row.
        number: of the row in the file, from 0.
        offset: of its first byte.
        num_bytes: its length, with the line break.
        cache: of rows that lie behind a url.
    """

    path: Path
    number: int
    offset: int
    num_bytes: int
    cache: RangeCache | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"

    def read(self) -> list[bytes]:
        """Its columns.

        Raises:
            LostShardError: if the file cannot be opened any more.
            ValueError: if the row does not begin and end where the index has it.
        """
        read = read_range if self.cache is None else self.cache.read
        with reading(self.path):
            line = read(self.path, self.offset, self.num_bytes)
            # The last row of a file may lack its line break.
            is_row = line.find(b"\n") == len(line) - 1 or (
                b"\n" not in line and not read_range(self.path, self.offset + len(line), 1)
            )
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
        path: the file with the rows; a path or a url.
        index: its index; the path with the suffix ``.lineidx`` if None.
        cache: of rows that lie behind a url.

    Raises:
        FileNotFoundError: if either is missing.
        ValueError: if the index is damaged or belongs to another file.
    """

    def __init__(
        self,
        path: str | Path,
        index: str | Path | None = None,
        cache: RangeCache | None = None,
    ) -> None:
        self.path = as_path(path)
        self.cache = cache
        index = as_path(index) if index is not None else self.path.with_suffix(".lineidx")
        for file in (self.path, index):
            if not file.is_file():
                raise FileNotFoundError(f"'{file}' is missing")
        self._offsets = np.append(read_index(index), self.path.stat().st_size)
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
        return TsvRow(self.path, number, begin, end - begin, self.cache)

    @property
    def num_bytes(self) -> int:
        """Of the file."""
        return int(self._offsets[-1])

    def read_starts(self, num_bytes: int) -> Iterator[bytes]:
        """The first bytes of each row, at most so many, without reading the megabytes behind."""
        lengths = np.minimum(np.diff(self._offsets), num_bytes).tolist()
        with self.path.open("rb", buffering=0) as file:
            for offset, length in zip(self._offsets.tolist(), lengths, strict=False):
                file.seek(offset)
                yield file.read(length)


def read_index(path: Path) -> np.ndarray:
    """(N,) where the rows of a shard begin, in bytes, from its index; without an object a row.

    Raises:
        ValueError: if it is no list of numbers.
    """
    text = path.read_bytes()
    if not text.strip():
        raise ValueError(f"'{path}' is empty")
    columns = len(text.split(b"\n", 1)[0].split())
    try:
        with warnings.catch_warnings():
            # numpy warns of text that it cannot read, and returns what came before.
            warnings.simplefilter("error")
            return np.fromstring(text, dtype=np.int64, sep=" ")[::columns]
    except (ValueError, DeprecationWarning) as error:
        raise ValueError(f"'{path}' is not a list of offsets: {error}") from error


class TsvRecords(ShardedRows):
    """Records of shards whose rows are name, json of the annotations, base64 image.

    Subclasses say in ``parse`` what the json means.

    Where ``NAME.label`` lies beside ``NAME.tsv`` (with ``NAME.label.lineidx``), the last column of
    its rows replaces the annotations.

    Args:
        folder: where the shards lie; a path or a url.
        cache: folder of this machine in which rows that lie behind a url are kept; "" for none.
        cache_gb: how many GB of rows are kept; ``RangeCache`` says which.

    Raises:
        FileNotFoundError: if a shard or an index is missing.
        ValueError: if an index or a label file does not fit its shard, or ``cache_gb`` is no
            positive number.
    """

    def __init__(
        self, folder: str | Path, cache: str | Path = "", cache_gb: str | float = 100
    ) -> None:
        with ThreadPoolExecutor(_OPENED_AT_ONCE) as pool:
            self.shards = list(pool.map(TsvFile, list_shards(folder)))
            self.labels = list(pool.map(find_labels, self.shards))
        super().__init__([len(shard) for shard in self.shards])
        if cache and is_remote(as_path(folder)):
            kept = RangeCache(cache, self._share(float(cache_gb)))
            for shard in self.shards:
                shard.cache = kept

    @staticmethod
    def parse(text: bytes) -> dict[str, Any]:
        """Keys of the record from the json; may raise what ``records.blame`` knows."""
        raise NotImplementedError

    def _share(self, gigabytes: float) -> float:
        """Which share of the rows is so many GB."""
        if not gigabytes > 0:
            raise ValueError(f"cache_gb is a positive number, not {gigabytes}")
        return min(1.0, gigabytes * 1e9 / sum(shard.num_bytes for shard in self.shards))

    def __getitem__(self, item: int) -> dict[str, Any]:
        """One record.

        Raises:
            BadRecordError: if the row does not parse.
        """
        number, row = self.find(item)
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
                **self.parse(annotations),
            }


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
    return parse_columns(row.read(), None if labels is None else labels.read())


def parse_columns(
    columns: Sequence[bytes], labels: Sequence[bytes] | None = None
) -> tuple[bytes, bytes, bytes]:
    """As ``read_columns``, of columns that were read.

    Raises:
        ValueError: if there are others, or the image is no base64.
    """
    name, annotations, image = columns
    if labels is not None:
        annotations = labels[-1]
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
