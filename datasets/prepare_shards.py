#!/usr/bin/env python3
"""Pack a data set into shards, which are read faster from shared storage than many small files.

    python datasets/prepare_shards.py coco_2017_train_panoptic --output shards/coco/train
    python datasets/prepare_shards.py sa_000000.tar sa_000001.tar --output datasets/sa1b_tsv/train

A source is a name of the catalog, a url such as ``visual_genome://DIR?split=train``, a folder of
images with a json of SA-1B beside each, a tar file of such, or a folder of shards. Several are one
data set; they have to be of one kind. The result is read as ``shards://FOLDER``, and trained and
evaluated on like its source; SA-1B's also as ``sa1b_tsv://FOLDER``.

A shard appears when it is whole. A run that was stopped goes on when its command is repeated, also
with another number of workers: the shards are the same. An image that cannot be used is named and
left out, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from semsam.data.datasets.shard_writer import FORMATS
from semsam.data.datasets.shards import name_of, pack_datasets
from semsam.utils.workers import default_num_workers


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and pack."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="data set, folder or tar file")
    parser.add_argument("--output", required=True, type=Path, help="folder for the shards")
    parser.add_argument("--format", default="tsv", choices=FORMATS)
    parser.add_argument("--workers", type=int, default=default_num_workers(), help="processes")
    parser.add_argument("--rows-per-shard", type=int, default=1000)
    parser.add_argument("--name", default="shard", help="start of the shards' file names")
    args = parser.parse_args(argv)
    names = [name_of(source) for source in args.sources]
    try:
        packed = pack_datasets(
            names, args.output, args.rows_per_shard, args.name, args.format, args.workers
        )
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    except (OSError, RuntimeError) as error:
        parser.error(f"{error}: whole shards stay, repeat the command to go on")
    for reason in packed.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    print(f"{packed.rows} images in {len(packed.shards)} shards: shards://{args.output}")
    return 1 if packed.left_out else 0


if __name__ == "__main__":
    sys.exit(main())
