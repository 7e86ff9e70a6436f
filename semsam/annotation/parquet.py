"""Results packed into parquet files, for the tools of data engineers.

``results-00000.parquet`` and on have a row a photo: ``name``, ``file_name`` (its path in the folder
of images), ``height``, ``width``, ``masks`` (their number), ``labelled`` (those of which something
could be said), ``class_name`` (a list, one entry a mask, null where it has none), ``result`` (the
photo's json, byte for byte) and ``bytes`` (its length). It needs pyarrow.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from semsam.data.records import blame
from semsam.utils.file_io import atomic_write

from .records import RESULT_SUFFIX

#: Photos of SA-1B with 100 masks take 0.3 MB each.
ROWS_PER_FILE = 1024
_ROWS_AT_ONCE = 64
_PATTERN = "results-*.parquet"
_COPIED = ("name", "file_name", "height", "width", "masks", "labelled")


class PackedResults:
    """The results in a folder's parquet files.

    Args:
        folder: of the results; it may have no such file.

    Attributes:
        sizes: bytes of each photo's json, by its name.

    Raises:
        BadRecordError: if a file is damaged; the message names it.
        RuntimeError: if there is such a file, but pyarrow is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.sizes: dict[str, int] = {}
        self._places: dict[str, tuple[Path, int]] = {}
        self._read: tuple[tuple[Path, int] | None, dict[str, bytes]] = (None, {})
        for path in sorted(Path(folder).glob(_PATTERN)):
            with _open(path) as file:
                for group in range(file.num_row_groups):
                    rows = file.read_row_group(group, ["name", "bytes"]).to_pydict()
                    self.sizes.update(zip(rows["name"], rows["bytes"], strict=True))
                    self._places.update(dict.fromkeys(rows["name"], (path, group)))

    def read(self, name: str) -> bytes:
        """A photo's json; quick where they are read in the order of names.

        Raises:
            KeyError: if it is not packed.
            BadRecordError: if its file is damaged.
        """
        place = self._places[name]
        if self._read[0] != place:
            path, group = place
            with _open(path) as file:
                rows = file.read_row_group(group, ["name", "result"]).to_pydict()
            texts = (text.encode() for text in rows["result"])
            self._read = place, dict(zip(rows["name"], texts, strict=True))
        return self._read[1][name]

    def files_of(self, names: Collection[str]) -> list[Path]:
        """The files in which these photos are."""
        return sorted({self._places[name][0] for name in names if name in self._places})


def pack_results(folder: Path, lines: Mapping[str, dict[str, Any]]) -> None:
    """Move the jsons of results into parquet files.

    Files appear whole, and a json goes only after that, so that it can be repeated when it was
    stopped. Photos are packed in the order of their names. A result that was made anew takes the
    place of the one that is packed.

    Args:
        folder: of the results.
        lines: of the journal, by the name of the photo.

    Raises:
        BadRecordError: if a file is damaged; the message names it.
        RuntimeError: if pyarrow is not installed.
        OSError: if a file cannot be written.
    """
    _pyarrow()
    packed = PackedResults(folder)

    def path_of(name: str) -> Path:
        return folder / f"{name}{RESULT_SUFFIX}"

    loose = [name for name in sorted(lines) if path_of(name).is_file()]
    for name in loose:
        if name in packed.sizes and packed.read(name) == path_of(name).read_bytes():
            path_of(name).unlink()
    loose = [name for name in loose if path_of(name).is_file()]
    outdated = {name for name in packed.sizes if name not in lines}.union(loose)
    for path in packed.files_of(outdated):
        _rewrite_without(path, outdated)
    last = max((int(path.stem.rpartition("-")[2]) for path in folder.glob(_PATTERN)), default=-1)
    for start in range(0, len(loose), ROWS_PER_FILE):
        names = loose[start : start + ROWS_PER_FILE]
        last += 1
        rows = (_row(lines[name], path_of(name)) for name in names)
        _write(folder / f"results-{last:05d}.parquet", rows)
        for name in names:
            path_of(name).unlink()


def _row(line: dict[str, Any], path: Path) -> dict[str, Any]:
    text = path.read_bytes()
    with blame(str(path)):
        names = [region.get("class_name") for region in json.loads(text)["annotations"]]
    copied = {key: line[key] for key in _COPIED}
    return {**copied, "bytes": len(text), "class_name": names, "result": text.decode()}


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    pa, pq = _pyarrow()
    whole = dict.fromkeys(("height", "width", "masks", "labelled", "bytes"), pa.int64())
    kinds = {
        "name": pa.string(),
        "file_name": pa.string(),
        **whole,
        "class_name": pa.list_(pa.string()),
        "result": pa.large_string(),
    }
    schema = pa.schema(list(kinds.items()))
    with (
        atomic_write(path, "wb") as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        while some := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(some, schema))


def _rewrite_without(path: Path, names: set[str]) -> None:
    with _open(path) as file:
        if names.issuperset(file.read(["name"]).to_pydict()["name"]):
            path.unlink()
            return
        groups = (file.read_row_group(i).to_pylist() for i in range(file.num_row_groups))
        _write(path, (row for rows in groups for row in rows if row["name"] not in names))


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    _, pq = _pyarrow()
    with blame(str(path)), pq.ParquetFile(path) as file:
        yield file


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise RuntimeError("parquet files need pyarrow: pip install 'semsam[parquet]'") from error
    return pyarrow, pyarrow.parquet
