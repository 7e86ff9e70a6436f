"""Results of the data engine and their photos, packed for training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semsam.data.catalog import DatasetCatalog
from semsam.data.datasets.shard_writer import FORMATS, pack_shards
from semsam.data.datasets.text_regions import text_region_row
from semsam.data.datasets.text_regions_tar import text_region_sample
from semsam.data.datasets.tsv import TsvRow, read_columns
from semsam.data.records import BadRecordError, blame

from .mask_sources import Item
from .output import Results
from .shards import find_items

#: What makes a row of a photo's name, file and result, by format.
_ROWS: dict[str, Callable[[str, bytes, dict[str, Any]], Any]] = {
    "tsv": text_region_row,
    "webdataset": text_region_sample,
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
    num_workers: int = 1,
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
        num_workers: processes.

    Raises:
        FileNotFoundError: if there are no results, or no photo has a box.
        ValueError: if there is no such form, a result is damaged, or the output is already
            packed, or was begun with other arguments.
        OSError: if a file cannot be written.
        RuntimeError: if results are parquet, but pyarrow is not installed; if a worker dies.
    """
    if form not in FORMATS:
        raise ValueError(f"shards are of the form {' or '.join(FORMATS)}, not '{form}'")
    found = Results(results)
    names = list(found.lines)
    items = find_items(images, {name: line["file_name"] for name, line in found.lines.items()})

    def make_row(name: str) -> Any:
        result = found.read(name)
        if not result["annotations"]:
            return None
        return _ROWS[form](name, _read(name, items.get(name)), result)

    packed = pack_shards(
        names,
        make_row,
        Path(output),
        rows_per_shard,
        shard_name,
        [f"{results} of {images}"],
        FORMATS[form],
        num_workers,
        # Without their embeddings rows of a TSV shard are regions as any others.
        DatasetCatalog.metadata_of_type("text_regions_tsv://") if form == "tsv" else {},
    )
    left_out = len(packed.left_out)
    return Packed(packed.rows, len(names) - packed.rows - left_out, packed.left_out)


def _read(name: str, item: Item | None) -> bytes:
    """The image file of a photo."""
    if item is None or item.image is None:
        raise BadRecordError(f"{name}: no such photo")
    with blame(name):
        if isinstance(item.image, TsvRow):
            return read_columns(item.image)[2]
        return item.image.read_bytes()
