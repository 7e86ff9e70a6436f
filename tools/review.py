"""Look at what ``tools/annotate.py`` left, and have people correct it.

    python tools/review.py sheet RESULTS IMAGES review.html    counts, agreement, pictures
    python tools/review.py export RESULTS coco.json            for CVAT and FiftyOne
    python tools/review.py export RESULTS coco.json --polygons     for Label Studio
    python tools/review.py import REVIEWED.json RESULTS CORRECTED

``import`` writes the corrected results into a folder of their own.
"""

from __future__ import annotations

import argparse

from semsam.annotation.coco_export import export_coco, import_coco
from semsam.annotation.report import write_review_sheet


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    sheet = commands.add_parser("sheet", help="write a page for human review")
    sheet.add_argument("results", help="folder that annotate.py wrote")
    sheet.add_argument("images", help="folder of photos or of TSV shards, or the one photo")
    sheet.add_argument("page", help="html file")
    sheet.add_argument("--photos", type=int, default=24, help="pictures in the page")
    export = commands.add_parser("export", help="write a COCO json")
    export.add_argument("results", help="folder that annotate.py wrote")
    export.add_argument("json", help="the file")
    export.add_argument("--field", default="class_name", help="holds the names")
    export.add_argument("--polygons", action="store_true", help="outlines for run-length codes")
    back = commands.add_parser("import", help="read a corrected COCO json")
    back.add_argument("reviewed", help="COCO json of instances")
    back.add_argument("results", help="folder that was exported")
    back.add_argument("corrected", help="folder for the corrected results")
    back.add_argument("--field", default="class_name", help="holds the names")
    return parser.parse_args(arguments)


def main(args: argparse.Namespace) -> None:
    """Do what the command says."""
    if args.command == "sheet":
        report = write_review_sheet(args.results, args.images, args.page, args.photos)
        print(f"{args.page}: {report.masks} {report.regions} of {report.photos} photos")
    elif args.command == "export":
        number = export_coco(args.results, args.json, args.field, args.polygons)
        print(f"{args.json}: {number} annotations")
    else:
        counts = import_coco(args.reviewed, args.results, args.corrected, args.field)
        print(", ".join(f"{number} {what}" for what, number in counts.items()))


if __name__ == "__main__":
    main(parse_args())
