#!/usr/bin/env python3
"""Pack what the data engine has found, and the photos, into shards for training.

    python datasets/prepare_text_regions.py results photos --output datasets/generated_tsv/train

``results`` is the folder that tools/annotate.py wrote, ``photos`` what it annotated. The shards are
read as ``text_regions_tsv://FOLDER``, and without embeddings as ``shards://FOLDER``. With
``--format webdataset`` they are tar files, read as ``text_regions_tar://FOLDER``, and by the
webdataset library. A shard appears when it is whole, and a run that was stopped goes on. A photo
without a box is left out; one that cannot be used is named too, and the exit code
is then 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from semsam.annotation.pack import pack_text_regions
from semsam.data.datasets.shard_writer import FORMATS
from semsam.utils.workers import default_num_workers


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and pack."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, help="folder that tools/annotate.py wrote")
    parser.add_argument("photos", type=Path, help="folder of photos or of TSV shards")
    parser.add_argument("--output", required=True, type=Path, help="folder for the shards")
    parser.add_argument("--format", default="tsv", choices=FORMATS)
    parser.add_argument("--workers", type=int, default=default_num_workers(), help="processes")
    parser.add_argument("--rows-per-shard", type=int, default=1000)
    parser.add_argument("--name", default="text_regions", help="start of the shards' file names")
    args = parser.parse_args(argv)
    try:
        packed = pack_text_regions(
            args.results,
            args.photos,
            args.output,
            args.rows_per_shard,
            args.name,
            args.format,
            args.workers,
        )
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    except (OSError, RuntimeError) as error:
        parser.error(f"{error}: whole shards stay, repeat the command to go on")
    for reason in packed.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    print(f"{packed.photos} photos; {packed.without_boxes} have no box")
    return 1 if packed.left_out else 0


if __name__ == "__main__":
    sys.exit(main())
