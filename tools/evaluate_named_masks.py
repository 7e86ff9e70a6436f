r"""Zero-shot instance segmentation: AP of masks that a model names by a data set's classes.

    python tools/evaluate_named_masks.py --model output/run --dataset coco_2017_val_instances \
        --output results
    python tools/evaluate_named_masks.py --model output/run --dataset lvis_v1_val \
        --boxes detections.json --classes lvis.safetensors --output results --num-gpus 8
    python tools/evaluate_named_masks.py --model output/run --dataset seginw --output results \
        --submission seginw.zip

Proposals are automatic masks; with ``--boxes`` the boxes of a json of COCO's results, or the true
ones with ``--boxes truth``. ``seginw`` stands for the 25 data sets of Segmentation in the Wild.
Files of results go to ``--output``; ``tools/evaluate_predictions.py`` reads them again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from semsam import SemSamPredictor
from semsam.config import get_cfg
from semsam.data import MetadataCatalog
from semsam.data.datasets.instances import SEGINW_NAMES
from semsam.data.photos import Photos
from semsam.engine import launch
from semsam.evaluation import build_evaluator, inference_on_dataset, print_table
from semsam.evaluation.evaluator import Results
from semsam.evaluation.seginw import evaluate_seginw, write_submission
from semsam.inference.class_names import ClassNames
from semsam.inference.named_instances import NamedInstances
from semsam.modeling.build import resolve_device
from semsam.modeling.text.templates import clean_name
from semsam.utils import comm
from semsam.utils.file_io import write_json
from semsam.utils.logger import setup_logger


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="zoo name, yaml file or a run's folder")
    parser.add_argument("--weights", help="file or url instead of the model's own")
    parser.add_argument("--dataset", required=True, help="name, scheme://PATH, or seginw")
    parser.add_argument("--classes", help="a classifier instead of the names of the data set")
    parser.add_argument("--parts", action="store_true", help="all classes are parts of things")
    parser.add_argument("--boxes", metavar="JSON", help="proposals: COCO's results, or truth")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--submission", metavar="ZIP", help="pack the files of seginw")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--num-gpus", type=int, default=1, help="workers; CPU processes without GPU"
    )
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--pred-iou-thresh", type=float, default=0.8)
    parser.add_argument("--stability-score-thresh", type=float, default=0.8)
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
    device = args.device
    if resolve_device(device).type == "cuda":
        device = f"cuda:{comm.get_local_rank()}"
    predictor = SemSamPredictor.from_pretrained(args.model, device, weights=args.weights)
    if args.dataset != "seginw":
        results = evaluate(args, predictor, args.dataset)
    else:
        for name in SEGINW_NAMES:
            # The others can still be done; the summary says which data sets are missing.
            with contextlib.suppress(FileNotFoundError):
                evaluate(args, predictor, f"seginw_{name}_val")
        results, _ = evaluate_seginw(args.output) if comm.is_main_process() else ({}, {})
    if comm.is_main_process():
        print_table(results)
        write_json(Path(args.output) / "results.json", results)
        if args.submission:
            write_submission(args.output, args.submission)


def evaluate(args: argparse.Namespace, predictor: SemSamPredictor, dataset: str) -> Results:
    """AP on one data set."""
    names = MetadataCatalog.get(dataset).thing_classes
    settings: dict[str, Any] = {}
    if args.boxes:
        settings["boxes"] = read_boxes(args.boxes, dataset)
    else:
        for key in ("points_per_side", "pred_iou_thresh", "stability_score_thresh"):
            settings[key] = getattr(args, key)
    classes = args.classes or [clean_name(name) for name in names]
    named = ClassNames(predictor.model, classes, args.parts)
    if len(named.names) != len(names):
        raise ValueError(f"--classes has {len(named.names)} classes, '{dataset}' has {len(names)}")
    find = NamedInstances(predictor, named, **settings)
    cfg = get_cfg()
    cfg.OUTPUT_DIR = args.output
    return inference_on_dataset(find, Photos(dataset), build_evaluator(cfg, dataset))


def read_boxes(path: str, dataset: str) -> dict[Any, np.ndarray]:
    """(N, 5) XYXY and score of each image, from COCO's results or the truth.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if an entry has no box; names its number.
    """
    source = Path(MetadataCatalog.get(dataset).json_file if path == "truth" else path)
    rows = json.loads(source.read_bytes())
    rows = rows["annotations"] if path == "truth" else rows
    boxes: dict[Any, list[list[float]]] = defaultdict(list)
    for number, row in enumerate(rows):
        try:
            x, y, width, height = row["bbox"]
            boxes[row["image_id"]].append([x, y, x + width, y + height, row.get("score", 1.0)])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"'{source}': entry {number} has no box: {error}") from error
    return {image: np.array(found, dtype=np.float32) for image, found in boxes.items()}


if __name__ == "__main__":
    parsed = parse_args()
    launch(main, parsed.num_gpus, device=parsed.device, args=(parsed,))
