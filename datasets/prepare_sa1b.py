#!/usr/bin/env python3
"""Pack SA-1B images and their annotations into TSV shards.

    python datasets/prepare_sa1b.py sa_000000.tar sa_000001.tar --output datasets/sa1b_tsv/train

A source is a folder, or a tar file as SA-1B is distributed, with images and a json of the same name
beside each. A shard appears when it is whole, and a run that was stopped continues after the last
one. An image without a usable json is named and left out, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from semsam.data.datasets.sa1b import IMAGE_SUFFIXES, parse_annotations
from semsam.data.datasets.shard_writer import pack_shards
from semsam.data.records import blame
from semsam.data.run_length import RunLengthMasks

Pair = tuple[str, bytes, bytes | None]


def read_folder(folder: Path) -> Iterator[Pair]:
    """Yield name, image and json (None if there is none) of every image of a folder."""
    for image in sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES):
        name = image.relative_to(folder).with_suffix("")
        annotations = image.with_suffix(".json")
        text = annotations.read_bytes() if annotations.is_file() else None
        yield name.as_posix(), image.read_bytes(), text


def read_tar(path: Path) -> Iterator[Pair]:
    """Yield name, image and json (None if there is none) of every image of a tar file."""
    with tarfile.open(path) as archive:
        members = {PurePosixPath(m.name): m for m in archive if m.isfile()}

        def content(name: PurePosixPath) -> bytes:
            file = archive.extractfile(members[name])
            assert file is not None
            return file.read()

        for name in sorted(members):
            if name.suffix.lower() in IMAGE_SUFFIXES:
                beside = name.with_suffix(".json")
                text = content(beside) if beside in members else None
                yield name.with_suffix("").as_posix(), content(name), text


def make_row(name: str, image: bytes, annotations: bytes | None) -> list[bytes]:
    """The columns of one row.

    Raises:
        BadRecordError: if the json is missing or damaged, or a mask does not fit the image.
    """
    with blame(name):
        if annotations is None:
            raise ValueError("no json beside the image")
        with Image.open(io.BytesIO(image)) as opened:
            width, height = opened.size
        parsed = parse_annotations(annotations)
        RunLengthMasks.from_coco([a["segmentation"] for a in parsed], (height, width))
    # Between values json needs no line breaks or tabs, and within a value they are escaped.
    text = annotations.translate(None, b"\t\r\n")
    return [name.encode(), text, base64.b64encode(image)]


def pack(sources: Sequence[Path], output: Path, rows_per_shard: int, shard_name: str) -> list[str]:
    """Write the shards, their indices and the list of shards.

    Args:
        sources: folders and tar files.
        output: folder of the shards; holds no list of shards yet.
        rows_per_shard: rows of a shard; the last one may have fewer.
        shard_name: start of the shards' file names.

    Returns:
        What was left out, and why.

    Raises:
        ValueError: if the output is already a packed dataset, or one begun with other arguments.
        FileNotFoundError: if a source does not exist, or there is no usable image in any.
    """
    pairs = itertools.chain.from_iterable(
        read_folder(source) if source.is_dir() else read_tar(source) for source in sources
    )
    names = ", ".join(map(str, sources))
    return pack_shards(
        pairs, lambda pair: make_row(*pair), output, rows_per_shard, shard_name, names
    )


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and pack."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "sources", nargs="+", type=Path, metavar="SOURCE", help="folder or tar file"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder for the shards")
    parser.add_argument("--rows-per-shard", type=int, default=1000)
    parser.add_argument("--name", default="sa1b", help="start of the shards' file names")
    args = parser.parse_args(argv)
    if args.rows_per_shard < 1:
        parser.error("--rows-per-shard must be at least 1")
    try:
        left_out = pack(args.sources, args.output, args.rows_per_shard, args.name)
    except (ValueError, FileNotFoundError, tarfile.TarError) as error:
        parser.error(str(error))
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(main())
