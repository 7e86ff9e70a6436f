#!/usr/bin/env python3
"""Pack a dataset of regions with captions into TSV shards.

    python datasets/prepare_regions.py 'visual_genome://datasets/visual_genome?split=train' \
        --output datasets/visual_genome_tsv/train

The dataset is any name whose records have regions; the result is read as ``regions_tsv://FOLDER``.
A shard appears when it is whole, and a run that was stopped continues after the last one. An image
that cannot be used is named and left out, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from semsam.data import DatasetCatalog
from semsam.data.datasets.regions import region_row
from semsam.data.datasets.shard_writer import pack_shards


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and pack."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", help="a registered name, or scheme://PATH?option=value")
    parser.add_argument("--output", required=True, type=Path, help="folder for the shards")
    parser.add_argument("--rows-per-shard", type=int, default=1000)
    parser.add_argument("--name", default="regions", help="start of the shards' file names")
    args = parser.parse_args(argv)
    if args.rows_per_shard < 1:
        parser.error("--rows-per-shard must be at least 1")
    try:
        records = DatasetCatalog.get(args.dataset)
        left_out = pack_shards(
            range(len(records)),
            lambda number: region_row(records[number]),
            args.output,
            args.rows_per_shard,
            args.name,
            args.dataset,
        )
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(main())
