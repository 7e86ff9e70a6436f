"""Look at data sets before a training does: check, count, show, join and part them.

    python tools/data.py verify SOURCE...                  # exit code 1 and a line a fault
    python tools/data.py stats SOURCE [--picture stats.png]
    python tools/data.py head SOURCE [--number 3] [--output pictures]
    python tools/data.py merge FOLDER FOLDER... --output FOLDER
    python tools/data.py split FOLDER --output train val --shares 9 1

A source is a folder of shards, one shard, a name of the catalog, a url such as
``coco_instances://DIR``, or a folder of images with a json of SA-1B beside each. Shards are those
of ``datasets/prepare_shards.py``, or others of SA-1B in the same layout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semsam.data import DatasetCatalog
from semsam.data.dataset_stats import Stats, bin_names, collect_stats
from semsam.data.datasets.rows import masks_as_codes
from semsam.data.datasets.shards import name_of
from semsam.data.records import BadRecordError, LazyImage
from semsam.data.run_length import RunLengthMasks
from semsam.data.shard_check import verify
from semsam.data.shard_edit import merge_shards, split_shards
from semsam.utils.charts import draw_report
from semsam.utils.visualizer import Visualizer
from semsam.utils.workers import default_num_workers

_BAR = 40
#: Texts in json, such as run-length codes, are cut to so many characters.
_SHOWN = 60


def run_verify(args: argparse.Namespace) -> int:
    """Print what is wrong."""
    rows = faults = 0
    for source in args.sources:
        for part in verify(_place(source), args.workers):
            rows += part.rows
            faults += len(part.faults)
            for fault in part.faults:
                print(fault, flush=True)
    print(f"{rows} rows, {faults} faults", file=sys.stderr)
    return 1 if faults else 0


def _place(source: str) -> str:
    """A source as ``verify`` takes it: shards by their place."""
    is_place = Path(source).suffix in (".tsv", ".tar")
    name = source if is_place else name_of(source)
    for scheme in ("shards://", "sa1b_tsv://", "sa1b_tar://"):
        if name.startswith(scheme) and "?" not in name:
            return name.removeprefix(scheme)
    return name


def run_stats(args: argparse.Namespace) -> int:
    """Print tables of counts; leave a picture."""
    stats = collect_stats(name_of(args.source), args.workers)
    print(format_stats(stats))
    if args.picture is not None:
        charts = {
            name: (bin_names(name), counts.tolist()) for name, counts in _shown_histograms(stats)
        }
        args.picture.parent.mkdir(parents=True, exist_ok=True)
        picture = draw_report(args.source, stats.table(), charts)
        Image.fromarray(picture).save(args.picture)
        print(f"\nas a picture: {args.picture}")
    return 0


def _shown_histograms(stats: Stats) -> list[tuple[str, np.ndarray]]:
    return [(name, counts) for name, counts in stats.histograms.items() if counts.any()]


def format_stats(stats: Stats) -> str:
    """The table, and each histogram with bars of text."""
    rows = stats.table()
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    for name, counts in _shown_histograms(stats):
        lines += ["", name]
        for label, count in zip(bin_names(name), counts.tolist(), strict=True):
            bar = "#" * round(_BAR * count / counts.max())
            lines.append(f"  {label:>12}  {count / counts.sum():6.1%}  {bar}".rstrip())
    return "\n".join(lines)


def run_head(args: argparse.Namespace) -> int:
    """Print the first rows, a json each; leave pictures of them."""
    records = DatasetCatalog.get(name_of(args.source))
    for number in range(min(args.number, len(records))):
        record = records[number]
        print(json.dumps(_readable(record), indent=2, ensure_ascii=False))
        if args.output is not None:
            args.output.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_record(record)).save(args.output / f"{number:03d}.png")
    return 0


def _readable(value: Any) -> Any:
    """Json without images, and with long texts cut."""
    if isinstance(value, dict):
        return {key: _readable(item) for key, item in value.items() if key != "image_bytes"}
    if isinstance(value, (list, tuple)):
        return [_readable(item) for item in value]
    if isinstance(value, np.ndarray):
        return f"{list(value.shape)} numbers"
    if isinstance(value, str) and len(value) > 2 * _SHOWN:
        return f"{value[:_SHOWN]}... ({len(value)} characters)"
    return value


def draw_record(record: dict[str, Any]) -> np.ndarray:
    """A photo with its masks, or its regions and what is said of them: (H, W, 3) uint8 RGB."""
    photo = LazyImage(record)
    picture = Visualizer(np.array(photo.decode()))
    if "regions" in record:
        regions = record["regions"]
        labels = [region["phrases"][0] for region in regions]
        return picture.draw_boxes([region["bbox"] for region in regions], labels=labels).image
    (items,) = masks_as_codes(record, photo.size).values()
    masks = RunLengthMasks.from_coco([item["segmentation"] for item in items], photo.size)
    return picture.draw_masks(masks.decode()).image


def run_merge(args: argparse.Namespace) -> int:
    """Join folders."""
    merged = merge_shards(args.folders, args.output, args.name)
    print(f"{merged.rows} rows in {len(merged.shards)} shards: {args.output}")
    return 0


def run_split(args: argparse.Namespace) -> int:
    """Part a folder."""
    shares = args.shares or [1.0] * len(args.output)
    for output, part in zip(
        args.output, split_shards(args.folder, args.output, shares), strict=True
    ):
        print(f"{part.rows} rows in {len(part.shards)} shards: {output}")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)

    def add(run: Any) -> argparse.ArgumentParser:
        command = commands.add_parser(run.__name__.removeprefix("run_"), help=run.__doc__)
        command.set_defaults(run=run)
        return command

    check = add(run_verify)
    check.add_argument("sources", nargs="+", metavar="SOURCE")
    count = add(run_stats)
    count.add_argument("source")
    count.add_argument("--picture", type=Path, metavar="FILE.png")
    for command in (check, count):
        command.add_argument("--workers", type=int, default=default_num_workers(), help="processes")
    head = add(run_head)
    head.add_argument("source")
    head.add_argument("--number", type=int, default=3, help="of rows")
    head.add_argument("--output", type=Path, help="folder for pictures")
    merge = add(run_merge)
    merge.add_argument("folders", nargs="+", metavar="FOLDER", type=Path)
    merge.add_argument("--output", required=True, type=Path)
    merge.add_argument("--name", default="shard", help="start of the shards' new file names")
    split = add(run_split)
    split.add_argument("folder", type=Path)
    split.add_argument("--output", required=True, nargs="+", type=Path)
    split.add_argument("--shares", nargs="+", type=float, help="a number each; equal if none")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and run a command."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except BadRecordError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, RuntimeError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
