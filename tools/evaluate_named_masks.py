r"""Zero-shot instance segmentation: AP of masks that a model names by a data set's classes.

    python tools/evaluate_named_masks.py --model output/run --dataset coco_2017_val_instances \
        --output results
    python tools/evaluate_named_masks.py --model output/run --dataset lvis_v1_val \
        --boxes detections.json --classes lvis.safetensors --output results --num-gpus 8
    python tools/evaluate_named_masks.py --model output/run --dataset seginw --output results \
        --submission seginw.zip

Proposals are automatic masks; with ``--boxes`` the boxes of a json of COCO's results, or the true
ones with ``--boxes truth``. ``seginw`` stands for the 25 data sets of Segmentation in the Wild.
What was found in an image is written at once, and ``--resume`` goes on with it. Files of results go
to ``--output``; ``tools/evaluate_predictions.py`` reads them again.
"""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from semsam import SemSamPredictor
from semsam.data import MetadataCatalog
from semsam.data.datasets.instances import SEGINW_NAMES
from semsam.data.datasets.regions import corners, read_json
from semsam.data.photos import Photos
from semsam.engine import launch
from semsam.evaluation import inference_on_dataset, print_table
from semsam.evaluation.evaluator import Results
from semsam.evaluation.instance_seg import (
    JOURNAL_KEYS,
    COCOEvaluator,
    evaluator_arguments,
    prediction_file_name,
)
from semsam.evaluation.prediction_file import PredictionFile
from semsam.evaluation.seginw import (
    evaluate_seginw,
    report_failures,
    with_failures,
    write_submission,
)
from semsam.inference.class_names import ClassNames
from semsam.inference.named_instances import NamedInstances
from semsam.modeling.text.classifier import BACKGROUND
from semsam.modeling.text.templates import clean_names
from semsam.utils import comm
from semsam.utils.file_io import write_json
from semsam.utils.logger import setup_logger

logger = logging.getLogger("semsam.evaluate_named_masks")


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="zoo name, yaml file or a run's folder")
    parser.add_argument("--weights", help="file or url instead of the model's own")
    parser.add_argument("--dataset", required=True, help="name, scheme://PATH, or seginw")
    parser.add_argument("--classes", help="a classifier's file, for the data set's names")
    parser.add_argument("--parts", action="store_true", help="all classes are parts of things")
    parser.add_argument("--boxes", metavar="JSON", help="proposals: COCO's results, or truth")
    parser.add_argument("--output", required=True, metavar="DIR", help="predictions, results.json")
    parser.add_argument("--resume", action="store_true", help="go on with the predictions there")
    parser.add_argument("--submission", metavar="ZIP", help="pack the files of seginw")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--num-gpus", type=int, default=1, help="workers; CPU processes without GPU"
    )
    automatic = parser.add_argument_group("automatic masks")
    automatic.add_argument("--points-per-side", type=int, default=32)
    automatic.add_argument("--pred-iou-thresh", type=float, default=0.8)
    automatic.add_argument("--stability-score-thresh", type=float, default=0.8)
    args = parser.parse_args(arguments)
    if args.dataset == "seginw" and (args.classes or args.boxes not in (None, "truth")):
        parser.error(
            "seginw has 25 lists of classes and photos: --classes and --boxes JSON are of one"
        )
    if args.submission and args.dataset != "seginw":
        parser.error("--submission is for --dataset seginw")
    return args


def main(args: argparse.Namespace) -> None:
    """Do the job in one of the processes."""
    setup_logger()
    failures: dict[str, str] = {}
    if args.dataset != "seginw":
        task = prepare(args, args.dataset)
        predictor = SemSamPredictor.from_pretrained(args.model, args.device, weights=args.weights)
        results = evaluate(args, predictor, *task)
    else:
        predictor = SemSamPredictor.from_pretrained(args.model, args.device, weights=args.weights)
        for name in SEGINW_NAMES:
            try:
                task = prepare(args, f"seginw_{name}_val")
            except (FileNotFoundError, ValueError):
                # The others can still be done; the summary says which data sets are missing.
                continue
            evaluate(args, predictor, *task)
        results, failures = evaluate_seginw(args.output) if comm.is_main_process() else ({}, {})
    if comm.is_main_process():
        print_table(results)
        report_failures(failures)
        write_json(Path(args.output) / "results.json", with_failures(results, failures))
        if args.submission:
            write_submission(args.output, args.submission)


def prepare(args: argparse.Namespace, dataset: str) -> tuple[Photos, list[str], COCOEvaluator]:
    """A data set's photos, the names of its things, and what measures AP of them.

    Raises:
        FileNotFoundError: if a file of the data set is missing.
        ValueError: if there is no such data set, it has no objects with classes, or is damaged.
    """
    photos, truth = Photos(dataset), evaluator_arguments(dataset)
    evaluator = COCOEvaluator(
        **truth,
        prediction_file=Path(args.output) / prediction_file_name(dataset),
        journal=PredictionFile(args.output, f"instances-{dataset}", JOURNAL_KEYS),
        resume=args.resume,
    )
    # Behind those of things are the names of stuff, if there are any.
    return photos, list(truth["class_names"])[: len(truth["category_ids"])], evaluator


def evaluate(
    args: argparse.Namespace,
    predictor: SemSamPredictor,
    photos: Photos,
    names: list[str],
    evaluator: COCOEvaluator,
) -> Results:
    """AP on one data set."""
    settings: dict[str, Any] = {}
    if args.boxes:
        settings["boxes"] = read_boxes(args.boxes, photos)
    else:
        for key in ("points_per_side", "pred_iou_thresh", "stability_score_thresh"):
            settings[key] = getattr(args, key)
    classes = args.classes or clean_names(names)
    named = ClassNames(predictor.model, classes, args.parts)
    more = named.names[len(names) :]
    if len(named.names) < len(names) or any(name != BACKGROUND for name in more):
        raise ValueError(
            f"--classes has {len(named.names)} classes, '{photos.dataset}' has {len(names)}: they "
            f"are the same, in the order of their ids; '{BACKGROUND}' may follow"
        )
    pairs = zip(names, clean_names(names), named.names, strict=False)
    if others := [(name, given) for name, clean, given in pairs if given not in (name, clean)]:
        logger.warning(
            "%d of %d classes are called otherwise in --classes: '%s' is '%s' there, ...",
            len(others),
            len(names),
            *others[0],
        )
    return inference_on_dataset(NamedInstances(predictor, named, **settings), photos, evaluator)


def read_boxes(path: str, photos: Photos) -> dict[Any, np.ndarray]:
    """(N, 5) float32 XYXY and score of each image, from COCO's results or the truth.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if an entry has no box or no finite score, names its number; or all are of other
            images than the data set's.
    """
    source = Path(MetadataCatalog.get(photos.dataset).json_file if path == "truth" else path)
    rows = read_json(source)
    if isinstance(rows, dict):
        rows = rows.get("annotations", [])
    boxes: dict[Any, list[list[float]]] = defaultdict(list)
    for number, row in enumerate(rows):
        try:
            box = [*corners(*row["bbox"]), float(row.get("score", 1.0))]
            if not np.isfinite(box).all() or box[0] > box[2] or box[1] > box[3]:
                raise ValueError(f"{row['bbox']} with score {box[4]}")
            boxes[row["image_id"]].append(box)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"'{source}': entry {number} is no box: {reason}") from error
    images = {record["image_id"] for record in photos.records}
    if not images & boxes.keys():
        raise ValueError(f"'{source}' has no box in an image of '{photos.dataset}'")
    if missing := len(images - boxes.keys()):
        logger.warning("%d of %d images have no box in '%s'", missing, len(images), source)
    return {image: np.array(found, dtype=np.float32) for image, found in boxes.items()}


if __name__ == "__main__":
    parsed = parse_args()
    launch(main, parsed.num_gpus, device=parsed.device, args=(parsed,))
