"""Results of the data engine and their photos, packed for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semsam.data.datasets.shard_writer import TAR, TSV, ShardFormat, pack_shards
from semsam.data.datasets.text_regions import text_region_row
from semsam.data.datasets.text_regions_tar import text_region_sample
from semsam.data.datasets.tsv import TsvRow, read_columns
from semsam.data.records import BadRecordError, blame

from .mask_sources import Item
from .output import read_results
from .shards import find_items

#: Name -> the format, and what makes a row of a photo's name, file and result.
_FORMATS: dict[str, tuple[ShardFormat, Callable[[str, bytes, dict[str, Any]], Any]]] = {
    "tsv": (TSV, text_region_row),
    "webdataset": (TAR, text_region_sample),
}


@dataclass(frozen=True)
class Packed:
    """What went into shards.

    Attributes:
        photos: rows of all shards.
        without_boxes: photos that have no box, and no row.
        left_out: photos that cannot be used, and why.
    """

    photos: int
    without_boxes: int
    left_out: list[str]


def pack_text_regions(
    results: str | Path,
    images: str | Path,
    output: str | Path,
    rows_per_shard: int = 1000,
    shard_name: str = "text_regions",
    form: str = "tsv",
) -> Packed:
    """Write shards for training.

    Args:
        results: as ``AnnotationEngine.run`` left it, with ``DetectedObjects`` and
            ``TextEmbeddingLabeler``; packed as parquet or not.
        images: what was annotated.
        output: folder of the shards; holds no list of shards yet.
        rows_per_shard: rows of a shard; the last one may have fewer.
        shard_name: start of the shards' file names.
        form: ``"tsv"``, as ``semsam.data.datasets.text_regions`` describes them, or
            ``"webdataset"``, tar files as ``text_regions_tar`` there does.

    Raises:
        FileNotFoundError: if there are no results, or no photo has a box.
        ValueError: if there is no such form, a result is damaged, or the output is already
            packed, or was begun with other arguments.
        RuntimeError: if results are parquet, but pyarrow is not installed.
    """
    if form not in _FORMATS:
        raise ValueError(f"shards are of the form {' or '.join(_FORMATS)}, not '{form}'")
    shard_format, make_row = _FORMATS[form]
    boxed, total = {}, 0
    for line, result in read_results(results):
        total += 1
        if result["annotations"]:
            boxed[line["name"]] = line["file_name"]
    items = find_items(images, boxed)

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        for line, result in read_results(results):
            if line["name"] in boxed:
                yield line["name"], result

    left_out = pack_shards(
        rows(),
        lambda row: make_row(row[0], _read(row[0], items.get(row[0])), row[1]),
        Path(output),
        rows_per_shard,
        shard_name,
        f"{results} of {images}",
        shard_format,
    )
    return Packed(len(boxed) - len(left_out), total - len(boxed), left_out)


def _read(name: str, item: Item | None) -> bytes:
    """The image file of a photo."""
    if item is None or item.image is None:
        raise BadRecordError(f"{name}: no such photo")
    with blame(name):
        if isinstance(item.image, TsvRow):
            return read_columns(item.image)[2]
        return item.image.read_bytes()
