"""AP of objects that were found before: COCO's results in a json, without a model.

    python tools/evaluate_predictions.py --dataset coco_2017_val_instances results.json
    python tools/evaluate_predictions.py --dataset seginw FOLDER --submission seginw.zip

``tools/train_net.py --eval-only`` leaves such files in OUTPUT_DIR. ``seginw`` stands for the 25
datasets of Segmentation in the Wild, of which FOLDER holds ``seginw_NAME_val.json``: mean and
median AP are of those that have a result; others are named, and the exit status is then 1.
"""

from __future__ import annotations

import argparse

from semsam.data import DatasetCatalog
from semsam.evaluation import print_table
from semsam.evaluation.instance_seg import COCOEvaluator, evaluator_arguments
from semsam.evaluation.seginw import (
    evaluate_seginw,
    report_failures,
    with_failures,
    write_submission,
)
from semsam.utils.file_io import write_json
from semsam.utils.logger import setup_logger


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("predictions", help="json of results; a folder for seginw")
    parser.add_argument("--dataset", required=True, help="name, scheme://PATH, or seginw")
    parser.add_argument("--output", metavar="JSON", help="file for the metrics")
    parser.add_argument("--submission", metavar="ZIP", help="pack the files of seginw")
    parsed = parser.parse_args(arguments)
    if parsed.submission and parsed.dataset != "seginw":
        parser.error("--submission is for --dataset seginw")
    return parsed


def main(args: argparse.Namespace) -> int:
    """Do the job; gives the exit status."""
    setup_logger()
    failures: dict[str, str] = {}
    if args.dataset != "seginw":
        DatasetCatalog.check(args.dataset)
    if args.submission:
        write_submission(args.predictions, args.submission)
    if args.dataset == "seginw":
        results, failures = evaluate_seginw(args.predictions)
    else:
        evaluator = COCOEvaluator(**evaluator_arguments(args.dataset))
        results = evaluator.evaluate_file(args.predictions)
    print_table(results)
    report_failures(failures)
    if args.output:
        write_json(args.output, with_failures(results, failures))
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main(parse_args()))
