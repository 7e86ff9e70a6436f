"""``shards://DIR``: any dataset as shards, read and evaluated like its source.

The folder is all that is needed: ``shards.json`` has the metadata of the source, and the COCO-style
json against which objects are evaluated, where the source has one, lies beside the shards.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from semsam.data.catalog import DatasetCatalog, MetadataCatalog, Records
from semsam.data.datasets.ground_truth import join_ground_truth
from semsam.data.datasets.rows import parse_row, parse_sample, record_row, record_sample
from semsam.data.datasets.shard_list import MANIFEST, Manifest, holds_shards, read_manifest
from semsam.data.datasets.shard_writer import FORMATS, pack_shards
from semsam.data.datasets.tar import TarRecords
from semsam.data.datasets.tsv import TsvRecords
from semsam.utils.file_io import atomic_write, write_json
from semsam.utils.storage import as_path

#: Of the json of objects, in a folder of shards.
GROUND_TRUTH = "ground_truth.json"
_ROWS = {"tsv": record_row, "webdataset": record_sample}


class ShardRecords(TsvRecords):
    """Records of TSV shards that ``pack_datasets`` has written.

    Arguments and errors are those of ``TsvRecords``.
    """

    @staticmethod
    def parse(text: bytes) -> dict[str, Any]:
        """See ``parse_row``."""
        return parse_row(text)


def name_of(source: str) -> str:
    """The name, in the catalog, of a dataset that may be given as a folder or a file.

    Args:
        source: a name or url of the catalog; a folder of shards, or of images with a json of SA-1B
            beside each; a tar file of such.
    """
    path = Path(source)
    if "://" in source or source in DatasetCatalog:
        return source
    if path.suffix == ".tar":
        return f"sa1b_tar://{source}"
    if not path.is_dir():
        return source
    if (path / MANIFEST).is_file():
        return f"shards://{source}"
    if holds_shards(path):
        return f"sa1b_tsv://{source}"
    return f"sa1b_{'tar' if any(path.glob('*.tar')) else 'folder'}://{source}"


def load_shards(folder: str | Path, cache: str = "", cache_gb: str | float = 100) -> Records:
    """Records of a folder of shards, TSV or tar files.

    Args:
        folder: of the shards and ``shards.json``; of TSV shards a url, too.
        cache: as for ``TsvRecords``.
        cache_gb: as for ``TsvRecords``.

    Raises:
        FileNotFoundError: if a shard, an index or ``shards.json`` is missing.
        ValueError: if a file is damaged, or the rows can only be read as the type of dataset that
            wrote them.
    """
    manifest = _read(folder)
    if manifest.suffix == ".tar":
        return TarRecords(folder, ["json"], parse_sample)
    return ShardRecords(folder, cache, cache_gb)


def describe_shards(
    folder: str | Path, cache: str = "", cache_gb: str | float = 100
) -> dict[str, Any]:
    """The metadata of the source; ``json_file`` is that of the folder.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_shards`.
    """
    metadata = _read(folder).metadata
    if "json_file" in metadata:
        metadata["json_file"] = str(as_path(folder) / metadata["json_file"])
    return metadata


def pack_datasets(
    names: Sequence[str],
    output: str | Path,
    rows_per_shard: int = 1000,
    shard_name: str = "shard",
    form: str = "tsv",
    num_workers: int = 1,
) -> Manifest:
    """Write one or more datasets of one kind as shards.

    Args:
        names: of the catalog, or urls; their metadata are equal.
        output: folder of the shards; see ``pack_shards`` for what may be there.
        rows_per_shard: images of a shard; the last one may have fewer.
        shard_name: start of the shards' file names.
        form: ``"tsv"`` or ``"webdataset"``, tar files.
        num_workers: processes.

    Raises:
        ValueError: if a dataset is unknown or damaged, the datasets are not of one kind, or as
            ``pack_shards``.
        FileNotFoundError: if a file of a dataset is missing, or no image can be used.
        OSError, RuntimeError: as ``pack_shards``.
    """
    if form not in FORMATS:
        raise ValueError(f"shards are of the form {' or '.join(FORMATS)}, not '{form}'")
    output = Path(output)
    records = _Joined([DatasetCatalog.get(name) for name in names])
    described = [MetadataCatalog.get(name).as_dict() for name in names]
    metadata = join_metadata(names, described)
    files = [Path(each["json_file"]) for each in described if "json_file" in each]
    has_truth = bool(files) and all(file.is_file() for file in files)
    if has_truth:
        metadata["json_file"] = GROUND_TRUTH
    return pack_shards(
        records,
        _ROWS[form],
        output,
        rows_per_shard,
        shard_name,
        names,
        FORMATS[form],
        num_workers,
        metadata,
        partial(copy_ground_truth, files, output / GROUND_TRUTH) if has_truth else None,
    )


def join_metadata(names: Sequence[str], described: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What several datasets have in common, which is all, but for files.

    Args:
        names: of the datasets, for messages.
        described: their metadata.

    Raises:
        ValueError: if they differ, or json cannot hold them.
    """
    files = ("json_file", "panoptic_json")
    # Metadata that were in json have lists where others have tuples.
    kept = [
        {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in each.items()
            if key not in files
        }
        for each in described
    ]
    for name, each in zip(names, kept, strict=True):
        for key in kept[0].keys() | each.keys():
            if each.get(key) != kept[0].get(key):
                raise ValueError(
                    f"'{names[0]}' and '{name}' are not of one kind: their {key} differ; write a "
                    "folder of shards for each, and name both to train on"
                )
    try:
        json.dumps(kept[0])
    except TypeError as error:
        raise ValueError(f"the metadata of '{names[0]}' cannot stand in json: {error}") from error
    return kept[0]


def copy_ground_truth(files: Sequence[Path], output: Path) -> None:
    """Join COCO-style jsons to one; errors as ``join_ground_truth``."""
    if len(files) > 1:
        write_json(output, join_ground_truth(files), indent=None)
        return
    with files[0].open("rb") as source, atomic_write(output, "wb") as copy:
        shutil.copyfileobj(source, copy)


def _read(folder: str | Path) -> Manifest:
    manifest = read_manifest(folder)
    if not manifest.metadata:
        raise ValueError(
            f"'{folder}' holds shards of '{manifest.source[0]}', which have a type of their own; "
            "datasets/README.md says which"
        )
    return manifest


class _Joined:
    """Records of several datasets, one after the other."""

    def __init__(self, parts: Sequence[Records]) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, item: int) -> dict[str, Any]:
        number = int(np.searchsorted(self.ends, item, side="right"))
        return self.parts[number][item - int(self.ends[number]) + len(self.parts[number])]
