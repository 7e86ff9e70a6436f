"""Folders of shards, joined and parted without reading a row more than is needed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from semsam.data.catalog import DatasetCatalog
from semsam.data.datasets.ground_truth import cut_ground_truth
from semsam.data.datasets.shard_list import (
    INDEX_SUFFIXES,
    MANIFEST,
    Manifest,
    ShardFile,
    list_shards,
    read_manifest,
    write_manifest,
)
from semsam.data.datasets.shard_writer import describe_shard
from semsam.data.datasets.shards import GROUND_TRUTH, copy_ground_truth, join_metadata
from semsam.data.datasets.tar import TarShard
from semsam.data.datasets.tsv import TsvFile
from semsam.utils.file_io import write_json


def merge_shards(
    folders: Sequence[str | Path], output: str | Path, shard_name: str = "shard"
) -> Manifest:
    """Make one folder of the shards of several, whose datasets are of one kind.

    Files are linked where the file system can, else copied.

    Args:
        folders: of shards; one without ``shards.json`` is taken for SA-1B, and read for it.
        output: the new folder; it appears when it is whole.
        shard_name: start of the shards' new file names.

    Raises:
        FileNotFoundError: if a folder, shard or index is missing.
        ValueError: if they are not of one kind, an image of two has objects to evaluate, a list of
            shards is damaged, or the output is there.
    """
    manifests = [describe_folder(folder) for folder in folders]
    names = [str(folder) for folder in folders]
    if len({manifest.suffix for manifest in manifests}) > 1:
        raise ValueError("shards of one folder are all .tsv or all .tar files")
    metadata = join_metadata(names, [manifest.metadata for manifest in manifests])
    with _new_folder(Path(output)) as made:
        if all("json_file" in manifest.metadata for manifest in manifests):
            metadata["json_file"] = GROUND_TRUTH
            truths = [
                Path(folder) / manifest.metadata["json_file"]
                for folder, manifest in zip(folders, manifests, strict=True)
            ]
            copy_ground_truth(truths, made / GROUND_TRUTH)
        pairs = [
            (Path(folder), shard)
            for folder, manifest in zip(folders, manifests, strict=True)
            for shard in manifest.shards
        ]
        merged = Manifest(
            _link_shards(pairs, made, shard_name),
            [name for manifest in manifests for name in manifest.source],
            metadata,
            [reason for manifest in manifests for reason in manifest.left_out],
        )
        write_manifest(made, merged)
    return merged


def split_shards(
    folder: str | Path, outputs: Sequence[str | Path], shares: Sequence[float]
) -> list[Manifest]:
    """Deal the shards of a folder out to several, each of which has all of its rows in one of them.

    Every shard, in order, goes to the folder that is furthest behind its share of the rows, so that
    each is a sample of the whole. Files are linked where the file system can, else copied.

    Args:
        folder: of shards; one without ``shards.json`` is taken for SA-1B, and read for it.
        outputs: the new folders; they appear when all are whole.
        shares: of the rows, a number above 0 for each output; only their proportions count.

    Raises:
        FileNotFoundError: if a shard or index is missing.
        ValueError: if shares are no such numbers, an output would be empty or is there, or the list
            of shards is damaged.
    """
    folder = Path(folder)
    if len(shares) != len(outputs) or not all(share > 0 for share in shares):
        raise ValueError(f"{list(shares)}: a number above 0 for each of {len(outputs)} folders")
    manifest = describe_folder(folder)
    dealt: list[list[ShardFile]] = [[] for _ in outputs]
    rows = [0] * len(outputs)
    for shard in manifest.shards:
        behind = min(range(len(outputs)), key=lambda number: rows[number] / shares[number])
        dealt[behind].append(shard)
        rows[behind] += shard.rows
    if not all(dealt):
        raise ValueError(
            f"{len(manifest.shards)} shards cannot be dealt out to {len(outputs)} folders in these "
            "shares; pack them with fewer rows a shard"
        )
    made = []
    with contextlib.ExitStack() as stack:
        for output, shards in zip(outputs, dealt, strict=True):
            part = stack.enter_context(_new_folder(Path(output)))
            made.append(_fill_part(folder, manifest, shards, part))
    return made


def describe_folder(folder: str | Path) -> Manifest:
    """What ``shards.json`` says, or would say.

    Raises:
        FileNotFoundError: if there is no shard, or one is missing.
        ValueError: if a file is damaged.
    """
    folder = Path(folder)
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        list_shards(folder, manifest.suffix)
        return manifest
    tar = any(folder.glob("*.tar"))
    name = f"sa1b_{'tar' if tar else 'tsv'}://{folder}"
    shards = [
        describe_shard(path, len(TarShard(path) if tar else TsvFile(path)))
        for path in list_shards(folder, ".tar" if tar else ".tsv")
    ]
    return Manifest(shards, [name], DatasetCatalog.metadata_of_type(name))


def _fill_part(folder: Path, manifest: Manifest, shards: list[ShardFile], output: Path) -> Manifest:
    if "json_file" in manifest.metadata:
        here = {image_id for shard in shards for image_id in _image_ids(folder / shard.name)}
        truth = cut_ground_truth(folder / manifest.metadata["json_file"], here)
        write_json(output / manifest.metadata["json_file"], truth, indent=None)
    _link_shards([(folder, shard) for shard in shards], output)
    # What was left out is of no part more than of another.
    part = replace(manifest, shards=shards)
    write_manifest(output, part)
    return part


def _image_ids(path: Path) -> Iterator[Any]:
    if path.suffix == ".tar":
        tar = TarShard(path)
        texts = (tar.read(row, ["json"])["json"] for row in range(len(tar)))
    else:
        tsv = TsvFile(path)
        texts = (tsv[row][1] for row in range(len(tsv)))
    return (json.loads(text)["image_id"] for text in texts)


def _link_shards(
    pairs: Sequence[tuple[Path, ShardFile]], output: Path, shard_name: str | None = None
) -> list[ShardFile]:
    """Shards with their indices and labels in another folder; under new names if one is given."""
    digits = max(5, len(str(len(pairs) - 1)))
    linked = []
    for number, (folder, shard) in enumerate(pairs):
        old = folder / shard.name
        name = f"{shard_name}-{number:0{digits}d}" if shard_name is not None else old.stem
        for suffix in (old.suffix, INDEX_SUFFIXES[old.suffix], ".label", ".label.lineidx"):
            file = old.with_name(old.stem + suffix)
            if file.is_file():
                _link(file, output / f"{name}{suffix}")
        linked.append(replace(shard, name=f"{name}{old.suffix}"))
    return linked


def _link(file: Path, place: Path) -> None:
    try:
        os.link(file.resolve(), place)
    except OSError:
        # Another file system, or one without links; the time is part of a tar file's index.
        shutil.copy2(file, place)


@contextlib.contextmanager
def _new_folder(output: Path) -> Iterator[Path]:
    """A folder that is called so when the block ends without an error."""
    if output.exists():
        raise ValueError(f"'{output}' exists; name another folder")
    unfinished = output.with_name(f".{output.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        unfinished.rename(output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
