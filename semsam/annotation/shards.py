"""Photos in TSV shards, with their masks and without."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from semsam.config import CfgNode, configurable
from semsam.data.datasets.sa1b import split_json
from semsam.data.datasets.shard_list import holds_shards, list_shards
from semsam.data.datasets.tsv import TsvFile, TsvRow, find_labels, read_columns
from semsam.data.records import LazyImage, blame

from .build import MASK_SOURCE
from .mask_sources import (
    ImageFiles,
    Item,
    MaskSource,
    check_annotations,
    check_exists,
    sort_items,
)
from .records import MaskedPhoto

#: Bytes of a name: file systems take 255, and results append some.
_MAX_NAME = 200
#: Shards whose rows are listed at once: on shared storage each row is a wait.
_NUM_THREADS = 16


class TsvPhotos(MaskSource):
    """The photos of TSV shards, without masks.

    A row is name, a column that is not read here, base64 image.

    Args:
        images: a folder of shards, or one shard, ``NAME.tsv``.
    """

    def __init__(self, images: str | Path) -> None:
        self.images = Path(images)

    def items(self) -> list[Item]:
        """See ``MaskSource``; a row whose name cannot be used has its shard's name and number.

        Raises:
            FileNotFoundError: if a shard or an index is missing.
            ValueError: if an index does not fit its shard, or two rows have one name.
        """
        return _list_rows(self.images, with_labels=False)

    def read(self, item: Item) -> MaskedPhoto:
        """See ``MaskSource``."""
        assert isinstance(item.image, TsvRow)
        with blame(str(item.image)):
            name, _, image = read_columns(item.image)
            parse_name(name)
        return MaskedPhoto(item.name, _decode(image, item.image), [])


@MASK_SOURCE.register
class TsvMasks(MaskSource):
    """Masks of SA-1B in TSV shards.

    A row is name, json of the annotations as ``Sa1bMasks`` reads it, base64 image; an empty json
    means no masks. Where ``NAME.label`` lies beside ``NAME.tsv``, the last column of its rows
    replaces the json.

    Args:
        images: a folder of shards, or one shard, ``NAME.tsv``.
    """

    @configurable
    def __init__(self, images: str | Path) -> None:
        self.images = Path(images)

    @classmethod
    def from_config(cls, cfg: CfgNode, images: str | Path) -> dict[str, Any]:
        """Translate the configuration."""
        return {"images": images}

    def items(self) -> list[Item]:
        """See ``TsvPhotos.items``; a label file that does not fit its shard is a ValueError too."""
        return _list_rows(self.images, with_labels=True)

    def read(self, item: Item) -> MaskedPhoto:
        """See ``MaskSource``."""
        assert isinstance(item.image, TsvRow)
        assert item.masks is None or isinstance(item.masks, TsvRow)
        with blame(str(item.image)):
            name, text, image_file = read_columns(item.image, item.masks)
            parse_name(name)
        where = str(item.masks or item.image)
        with blame(where):
            annotations, fields = split_json(text) if text.strip() else ([], {})
        image = _decode(image_file, item.image)
        with blame(where):
            return MaskedPhoto(item.name, image, check_annotations(annotations, image), fields)


def open_photos(images: str | Path) -> MaskSource:
    """Photos without masks, from what a path holds.

    Args:
        images: TSV shards, as ``TsvPhotos`` takes them, or images, as ``ImageFiles`` does. A folder
            with an index of shards is one of shards, whatever else lies in it.
    """
    return TsvPhotos(images) if _is_shards(Path(images)) else ImageFiles(images)


def find_items(images: str | Path, file_names: Mapping[str, str]) -> dict[str, Item]:
    """Some photos of a run, for the source that ``open_photos`` gives.

    Args:
        images: what was annotated: TSV shards, a folder, or one image.
        file_names: ``Item.file_name`` of the photos by their names.

    Returns:
        Items by name; none for a name that no row has. Whether a file is there shows when it is
        read.

    Raises:
        FileNotFoundError, ValueError: as ``TsvPhotos.items``.
    """
    images = Path(images)
    if _is_shards(images):
        return {item.name: item for item in TsvPhotos(images).items() if item.name in file_names}
    folder = images if images.is_dir() else None
    return {n: Item(n, folder / f if folder else images) for n, f in file_names.items()}


def parse_name(column: bytes) -> str:
    """The name of a row, which is the path of its result in the folder of results.

    Raises:
        ValueError: if it is no text, leads out of the folder, or no file can be called so.
    """
    if len(column) > _MAX_NAME:
        raise ValueError(f"the name is longer than {_MAX_NAME} bytes: {column[:40]!r}...")
    name = column.decode()
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        raise ValueError(f"the name '{name}' leads out of the folder of results")
    if "" in parts or "." in parts or "\0" in name:
        raise ValueError(f"{name!r} is no name of a photo")
    return name


def _is_shards(images: Path) -> bool:
    return images.suffix == ".tsv" or holds_shards(images)


def _list_rows(images: Path, with_labels: bool) -> list[Item]:
    if images.suffix == ".tsv":
        shards = [images]
    else:
        check_exists(images)
        shards = list_shards(images)
    with ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="list") as pool:
        listed: Iterable[list[Item]] = pool.map(lambda path: _list_shard(path, with_labels), shards)
        return sort_items([item for items in listed for item in items])


def _list_shard(path: Path, with_labels: bool) -> list[Item]:
    shard = TsvFile(path)
    labels = find_labels(shard) if with_labels else None
    items = []
    for number, start in enumerate(shard.read_starts(_MAX_NAME + 1)):
        try:
            name = parse_name(start.partition(b"\t")[0])
        except ValueError:
            # One of millions does not end a run: the row is found bad again where it is read.
            name = f"{path.name}:{number}"
        items.append(Item(name, shard.row(number), None if labels is None else labels.row(number)))
    return items


def _decode(image_file: bytes, row: TsvRow) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright."""
    return np.array(LazyImage({"file_name": str(row), "image_bytes": image_file}).decode())
