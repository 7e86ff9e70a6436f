"""Finds what is wrong with shards, or with any dataset, before a training does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from semsam.data.catalog import DatasetCatalog, Records
from semsam.data.datasets.rows import check_record, parse_row, parse_sample
from semsam.data.datasets.shard_list import (
    INDEX_SUFFIXES,
    MANIFEST,
    PROGRESS,
    ShardFile,
    read_manifest,
)
from semsam.data.datasets.shard_writer import file_sha256
from semsam.data.datasets.tar import TarRecords, TarShard
from semsam.data.datasets.text_regions import TextRegionsTsv
from semsam.data.datasets.text_regions_tar import TextRegionsTar
from semsam.data.datasets.tsv import TsvFile, parse_columns, read_index
from semsam.data.records import BadRecordError, blame
from semsam.utils.workers import map_in_processes

#: Rows of a dataset that is no folder of shards, which a worker checks at once.
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Fault:
    """Something that is wrong.

    Attributes:
        file: where; or the name of a dataset.
        row: of the file, from 0; None if it is not of one row.
        reason: what it is.
    """

    file: str
    row: int | None
    reason: str

    def __str__(self) -> str:
        where = self.file if self.row is None else f"{self.file}:{self.row}"
        return f"{where}: {' '.join(self.reason.split())}"


@dataclass
class Checked:
    """What was found in a part of a dataset.

    Attributes:
        file: as in ``Fault``.
        faults: in order of the rows.
        rows: that were looked at.
        named: (N,) rows that could be read, of the file.
        names: (N,) digests of their names.
    """

    file: str
    faults: list[Fault] = field(default_factory=list)
    rows: int = 0
    named: list[int] = field(default_factory=list)
    names: list[int] = field(default_factory=list)

    def add(self, row: int | None, reason: object) -> None:
        """Note a fault."""
        self.faults.append(Fault(self.file, row, str(reason)))

    def add_name(self, row: int, name: object) -> None:
        """Note a row's name."""
        digest = hashlib.blake2b(str(name).encode(), digest_size=8).digest()
        self.named.append(row)
        self.names.append(int.from_bytes(digest, "little"))


@dataclass(frozen=True)
class _Names:
    """Of a part that was checked: millions of rows, as few bytes each as can be."""

    file: str
    rows: NDArray[np.int64]
    names: NDArray[np.uint64]


def verify(source: str | Path, num_workers: int = 1) -> Iterator[Checked]:
    """Check all rows, and the indices and checksums of shards, going on after each fault.

    Found are missing and unlisted files, wrong sizes and checksums, rows that were cut, indices
    that do not fit, images that cannot be decoded, masks that are damaged or of another size than
    their image, regions that cannot be used, and names that two rows have.

    Args:
        source: a folder of shards; one shard; or the name of a dataset in the catalog.
        num_workers: processes.

    Yields:
        Parts as they are done; names that occur twice come last.

    Raises:
        FileNotFoundError, ValueError: if there is no such source.
        RuntimeError: if a worker dies.
    """
    path = Path(str(source).removeprefix("shards://").removeprefix("sa1b_tsv://"))
    suffix = path.suffix
    if path.is_dir():
        parts, check, first = _folder_parts(path)
        if first.faults:
            yield first
    elif suffix in INDEX_SUFFIXES and path.is_file():
        parts, check = [(path, None)], _check_shard
    else:
        records = DatasetCatalog.get(str(source))
        starts = range(0, len(records), _ROWS_AT_ONCE)
        parts, check = list(starts), partial(_check_rows, str(source), records)
    done: list[_Names] = []
    bar = tqdm(map_in_processes(check, parts, num_workers), total=len(parts), disable=None)
    for _, part in bar:
        rows = np.array(part.named, dtype=np.int64)
        done.append(_Names(part.file, rows, np.array(part.names, dtype=np.uint64)))
        yield part
    if done:
        yield from _find_twice(sorted(done, key=lambda part: (part.file, part.rows[:1].tolist())))


def _folder_parts(folder: Path) -> tuple[list[Any], Callable[[Any], Checked], Checked]:
    """The shards of a folder, with what is said of each, and what is wrong with their list."""
    found = {
        path for suffix in INDEX_SUFFIXES for path in folder.glob(f"*{suffix}") if path.is_file()
    }
    checked = Checked(str(folder / MANIFEST))
    if (folder / PROGRESS).is_file():
        checked.file = str(folder / PROGRESS)
        checked.add(None, "the folder is packed in part; repeat the command that packs it")
    if not (folder / MANIFEST).is_file():
        if not found:
            raise FileNotFoundError(f"no shard in '{folder}'")
        return [(path, None) for path in sorted(found)], _check_shard, checked
    listed: list[tuple[Path, ShardFile | None]] = []
    try:
        listed = [(folder / shard.name, shard) for shard in read_manifest(folder).shards]
    except ValueError as error:
        checked.add(None, error)
        return [(path, None) for path in sorted(found)], _check_shard, checked
    for path in sorted(found - {path for path, _ in listed}):
        checked.add(None, f"'{path.name}' is not listed")
        listed.append((path, None))
    return listed, _check_shard, checked


def _check_shard(item: tuple[Path, ShardFile | None]) -> Checked:
    path, told = item
    checked = Checked(str(path))
    if not path.is_file():
        checked.add(None, "the file is missing")
        return checked
    if path.suffix == ".tar":
        sha256 = _check_tar(path, checked, told is not None)
    else:
        sha256 = _check_tsv(path, checked)
    if told is not None:
        size = path.stat().st_size
        for what, found, expected in (
            ("bytes", size, told.bytes),
            ("rows", checked.rows, told.rows),
            ("checksum", sha256, told.sha256),
        ):
            if found != expected:
                checked.add(None, f"{what}: {found}, but {MANIFEST} says {expected}")
    return checked


def _check_tsv(path: Path, checked: Checked) -> str:
    """Check the rows of a TSV shard as they lie in the file; returns its checksum."""
    labels = None
    label_file = path.with_suffix(".label")
    try:
        if label_file.is_file():
            labels = TsvFile(label_file, label_file.with_name(f"{label_file.name}.lineidx"))
    except (ValueError, OSError) as error:
        checked.add(None, error)
    digest = hashlib.sha256()
    offsets = []
    position = 0
    with path.open("rb") as file:
        for row, line in enumerate(file):
            digest.update(line)
            offsets.append(position)
            position += len(line)
            try:
                with blame(""):
                    columns = line.rstrip(b"\r\n").split(b"\t")
                    name, text, image = parse_columns(columns, labels[row] if labels else None)
                    parse = TextRegionsTsv.parse if b'"text_embeddings"' in text else parse_row
                    record = {"file_name": "", "image_id": name.decode(), "image_bytes": image}
                    checked.add_name(row, record["image_id"])
                    check_record({**record, **parse(text)})
            except BadRecordError as error:
                checked.add(row, _short(error))
    checked.rows = len(offsets)
    _check_index(path.with_suffix(INDEX_SUFFIXES[".tsv"]), np.array(offsets), checked)
    return digest.hexdigest()


def _check_index(path: Path, offsets: NDArray[np.int64], checked: Checked) -> None:
    """Compare an index with where rows begin."""
    try:
        told = read_index(path)
    except (ValueError, OSError) as error:
        checked.faults.append(Fault(str(path), None, str(error)))
        return
    both = min(len(told), len(offsets))
    wrong = np.flatnonzero(told[:both] != offsets[:both])
    if len(told) != len(offsets):
        reason = f"the index has {len(told)} rows, the file {len(offsets)}"
        checked.faults.append(Fault(str(path), None, reason))
    if len(wrong):
        row = int(wrong[0])
        reason = f"the row begins at byte {offsets[row]}, not {told[row]}"
        more = f"; so it is with {len(wrong) - 1} more" if len(wrong) > 1 else ""
        checked.faults.append(Fault(str(path), row, reason + more))


def _check_tar(path: Path, checked: Checked, with_checksum: bool) -> str:
    """Check the samples of a tar shard; returns its checksum."""
    try:
        shard = TarShard(path)
        records = _open_tar(path, shard)
    except (ValueError, OSError) as error:
        checked.add(None, error)
    else:
        checked.rows = len(shard)
        for row in range(len(shard)):
            _check_row(records, row, checked)
    return file_sha256(path) if with_checksum else ""


def _open_tar(path: Path, shard: TarShard) -> TarRecords:
    kinds = ("clip_emb_phrases.npy", "text_features.npy")
    if shard.read(0, kinds):
        try:
            return TextRegionsTar(path)
        except ValueError:
            # Which encoder it is matters to who trains.
            return TextRegionsTar(path, "unknown")
    return TarRecords(path, ["json"], parse_sample)


def _check_rows(name: str, records: Records, start: int) -> Checked:
    checked = Checked(name)
    stop = min(start + _ROWS_AT_ONCE, len(records))
    checked.rows = stop - start
    for row in range(start, stop):
        _check_row(records, row, checked)
    return checked


def _check_row(records: Records, row: int, checked: Checked) -> None:
    try:
        record = records[row]
        checked.add_name(row, record["image_id"])
        check_record(record)
    except BadRecordError as error:
        checked.add(row, _short(error))


def _short(error: BadRecordError) -> str:
    """Without the place, where there is none."""
    return str(error).removeprefix(": ")


def _find_twice(parts: Sequence[_Names]) -> Iterator[Checked]:
    """Faults of rows whose name another row has.

    Args:
        parts: file, rows and their names' digests of each part; one part or more.
    """
    names = np.concatenate([part.names for part in parts])
    part_of = np.repeat(np.arange(len(parts)), [len(part.names) for part in parts])
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(names, kind="stable")
    same = np.flatnonzero(names[order][1:] == names[order][:-1])
    for place in same.tolist():
        first, second = order[place], order[place + 1]
        checked = Checked(parts[part_of[second]].file)
        where = f"{parts[part_of[first]].file}:{rows[first]}"
        checked.add(int(rows[second]), f"the row has the name of {where}")
        yield checked
