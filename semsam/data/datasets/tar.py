"""Samples in tar shards, the layout of the webdataset library, read in any order.

A sample is the members whose paths are the same up to the first dot of the file's name; what comes
after that dot tells them apart: ``0001.jpg``, ``0001.json``, ``0001.clip_caption.npy``. Nothing is
unpacked: an index beside ``NAME.tar``, ``NAME.taridx``, has each member's place. It is made when it
is missing or the tar file is another than it was.
"""

from __future__ import annotations

import io
import logging
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semsam.data.datasets.shard_list import INDEX_SUFFIXES, ShardedRows, list_shards, reading
from semsam.data.records import blame
from semsam.data.run_length import IntArray
from semsam.utils.file_io import atomic_write

#: What a sample's image may be called, behind the dot.
IMAGE_KINDS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tiff")
#: Raised when the arrays of an index change.
_VERSION = 1
_NAME = re.compile(r"(?:\./)*((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Index:
    """Where the S samples and M members of a tar file lie.

    Attributes:
        stamp: (3,) version of the index, the tar file's size in bytes and its time in ns.
        names: (S,) bytes, of the samples in the order in which they begin.
        first: (S + 1,) the members of sample i are first[i] to first[i + 1].
        kinds: (K,) bytes, what follows the dot.
        kind: (M,) of each member, a number in ``kinds``.
        offset: (M,) of its first byte.
        size: (M,) in bytes.
    """

    stamp: IntArray
    names: NDArray[np.bytes_]
    first: IntArray
    kinds: NDArray[np.bytes_]
    kind: NDArray[np.int32]
    offset: IntArray
    size: IntArray


class TarShard:
    """The samples of one tar file, read one at a time.

    As with ``TsvFile`` the file is opened for each read.

    Args:
        path: the tar file, not compressed.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it is no tar file, was cut, or has no sample.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"'{self.path}' is missing")
        self._index = _find_index(self.path)
        self._kinds = [_decode(kind) for kind in self._index.kinds]

    def __len__(self) -> int:
        return len(self._index.names)

    def name(self, item: int) -> str:
        """Path of a sample's members, up to the dot."""
        return _decode(self._index.names[item])

    def read(self, item: int, kinds: Collection[str]) -> dict[str, bytes]:
        """Members of a sample by kind; those that are not asked for are not read.

        Raises:
            LostShardError: if the file is gone.
            ValueError: if it was cut since it was opened.
        """
        index = self._index
        first, last = index.first[item : item + 2].tolist()
        members = {}
        with reading(self.path), self.path.open("rb") as file:
            for number in range(first, last):
                kind, size = self._kinds[index.kind[number]], int(index.size[number])
                if kind in kinds:
                    file.seek(int(index.offset[number]))
                    members[kind] = file.read(size)
                    if len(members[kind]) < size:
                        raise ValueError(f"'{self.path}' ends in its .{kind}: it was cut")
        return members


class TarRecords(ShardedRows):
    """Records of tar shards, a sample each.

    Args:
        path: a folder of shards, or one shard, ``NAME.tar``.
        kinds: of members that a record is made of beside the image.
        parse: turns a record, of the image alone, and those members into further keys; may raise
            what ``records.blame`` knows.

    Raises:
        FileNotFoundError: if a shard is missing.
        ValueError: if a shard is no tar file, or was cut.
    """

    def __init__(
        self,
        path: str | Path,
        kinds: Collection[str],
        parse: Callable[[dict[str, Any], dict[str, bytes]], dict[str, Any]],
    ) -> None:
        path = Path(path)
        paths = [path] if path.suffix == ".tar" else list_shards(path, ".tar")
        self.shards = [TarShard(shard) for shard in paths]
        self._kinds = (*IMAGE_KINDS, *kinds)
        self._parse = parse
        super().__init__([len(shard) for shard in self.shards])

    def __getitem__(self, item: int) -> dict[str, Any]:
        """One record.

        Raises:
            BadRecordError: if the sample does not parse.
        """
        number, row = self.find(item)
        shard = self.shards[number]
        where = f"{shard.path}:{shard.name(row)}"
        with blame(where):
            members = shard.read(row, self._kinds)
            image = next((members[kind] for kind in IMAGE_KINDS if kind in members), None)
            if image is None:
                raise ValueError("no member is an image")
            record = {"file_name": where, "image_id": shard.name(row), "image_bytes": image}
            return {**record, **self._parse(record, members)}


def write_tar(path: str | Path, samples: Iterable[Mapping[str, bytes]]) -> int:
    """Write a shard and its index; both appear when they are whole, the index last.

    Args:
        path: the file, usually ``*.tar``; samples are called like it, with a number.
        samples: contents of the members by kind.

    Returns:
        How many samples were written.
    """
    path = Path(path)
    number = 0
    with atomic_write(path, "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
        for sample in samples:
            # A dot would end the sample's name.
            name = f"{path.stem.replace('.', '_')}-{number:06d}"
            for kind, content in sample.items():
                member = tarfile.TarInfo(f"{name}.{kind}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            number += 1
    _find_index(path)
    return number


def image_kind(image_file: bytes) -> str:
    """What an encoded image is called as a member.

    Raises:
        OSError: if it is no image.
        ValueError: if samples have no images of its format.
    """
    name = str(Image.open(io.BytesIO(image_file)).format).lower()
    kind = "jpg" if name in ("jpeg", "mpo") else name
    if kind not in IMAGE_KINDS:
        raise ValueError(f"samples have no images of the format {name}")
    return kind


def _find_index(path: Path) -> _Index:
    """Read the index of a tar file, or make it, and keep it where the folder can be written to."""
    place = path.with_suffix(INDEX_SUFFIXES[".tar"])
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        stamp = np.array([_VERSION, status.st_size, status.st_mtime_ns])
        index = _read_index(place)
        if index is not None and np.array_equal(index.stamp, stamp):
            return index
        index = _make_index(path, file, stamp)
    try:
        with atomic_write(place, "wb") as written:
            np.savez(written, **asdict(index))
    except OSError as error:
        logger.info("the index of '%s' stays in memory: %s", path, error)
    return index


def _read_index(place: Path) -> _Index | None:
    """An index that was kept; None if there is none, or it is damaged."""
    try:
        with np.load(place, allow_pickle=False) as arrays:
            return _Index(**{field.name: arrays[field.name] for field in fields(_Index)})
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _make_index(path: Path, file: IO[bytes], stamp: IntArray) -> _Index:
    logger.info("making the index of '%s'", path)
    names: dict[str, int] = {}
    kinds: dict[str, int] = {}
    rows = []
    for member in _members(path, file, int(stamp[1])):
        match = _NAME.fullmatch(member.name)
        if member.isreg() and match:
            name, kind = match[1], match[2].lower()
            sample = names.setdefault(name, len(names))
            number = kinds.setdefault(kind, len(kinds))
            rows.append((sample, number, member.offset_data, member.size))
    if not rows:
        raise ValueError(f"'{path}' has no sample")
    # The members of a sample need not be neighbours.
    table = np.array(rows, dtype=np.int64)
    table = table[np.argsort(table[:, 0], kind="stable")]
    samples, number, offset, size = table.T.copy()
    return _Index(
        stamp=stamp,
        names=np.array([name.encode(errors="surrogateescape") for name in names]),
        first=np.searchsorted(samples, np.arange(len(names) + 1)),
        kinds=np.array([kind.encode(errors="surrogateescape") for kind in kinds]),
        kind=number.astype(np.int32),
        offset=offset,
        size=size,
    )


def _decode(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


def _members(path: Path, file: IO[bytes], num_bytes: int) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file; tarfile alone takes one that was cut between two for whole.

    Raises:
        ValueError: if it is no tar file, or its end is missing.
    """
    last = ""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                there = num_bytes - member.offset_data
                if there < member.size:
                    raise ValueError(
                        f"'{path}' was cut: of '{member.name}' it has {max(there, 0)} of "
                        f"{member.size} bytes"
                    )
                yield member
                last = member.name
            file.seek(archive.offset)
    except tarfile.TarError as error:
        if not last:
            raise ValueError(
                f"'{path}' is no tar file ({error}); a compressed one has to be unpacked first"
            ) from error
        raise ValueError(f"'{path}' was cut or is damaged after '{last}': {error}") from error
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ValueError(f"'{path}' was cut or is damaged after '{last}'")
