"""Dense captioning: everything in the photos of a dataset is found and described, and measured.

    python tools/evaluate_dense_captions.py --model NAME --dataset visual_genome_test --output DIR

No prompt is given: the automatic masks that survive the filters are described, and their boxes with
captions compared with the dataset's regions by DenseCap's mAP. They are ranked by predicted IoU
times the mean probability of the caption's tokens. What was found in an image is written at once,
and ``--resume`` goes on with it. An unreadable image is named and left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from semsam import RegionCaptioner
from semsam.data.photos import Photos
from semsam.engine import launch
from semsam.evaluation import inference_on_dataset, print_table
from semsam.evaluation.dense_caption import DenseCaptionEvaluator, region_truth
from semsam.inference.amg_utils import outer_boxes
from semsam.structures import Boxes, Instances
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
    parser.add_argument("--dataset", required=True, help="of regions: a name or scheme://PATH")
    parser.add_argument("--output", required=True, metavar="DIR", help="predictions, results.json")
    parser.add_argument("--resume", action="store_true", help="go on with the predictions there")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--num-gpus", type=int, default=1, help="workers; CPU processes without GPU"
    )
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--pred-iou-thresh", type=float, default=0.88)
    parser.add_argument("--stability-score-thresh", type=float, default=0.92)
    return parser.parse_args(arguments)


def main(args: argparse.Namespace) -> None:
    """Do the job in one of the processes."""
    setup_logger()
    evaluator = DenseCaptionEvaluator(
        dataset_name=args.dataset, output_dir=args.output, resume=args.resume
    )
    photos = Photos(args.dataset, region_truth)
    captioner = RegionCaptioner.from_pretrained(args.model, args.device, args.weights)

    def describe(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        outputs = []
        for record in batch:
            found = captioner.caption_everything(
                record["photo"],
                points_per_side=args.points_per_side,
                pred_iou_thresh=args.pred_iou_thresh,
                stability_score_thresh=args.stability_score_thresh,
                output_mode="coco_rle",
            )
            outputs.append({"instances": ranked_boxes(found, record["photo"].shape[:2])})
        return outputs

    results = inference_on_dataset(describe, photos, evaluator)
    print_table(results)
    if comm.is_main_process():
        write_json(Path(args.output, "results.json"), results)


def ranked_boxes(records: list[dict[str, Any]], size: tuple[int, int]) -> Instances:
    """Boxes, captions and scores of the records of a photo of (H, W).

    The score is the predicted IoU times the geometric mean of the probabilities of the caption's
    tokens: a box counts as far as it fits and its sentence is certain.
    """
    quality = torch.tensor([record["predicted_iou"] for record in records])
    certainty = torch.tensor([record["caption_score"] for record in records]).exp()
    return Instances(
        size,
        pred_boxes=Boxes(outer_boxes(records)),
        scores=quality * certainty,
        pred_captions=[record["caption"] for record in records],
    )


if __name__ == "__main__":
    parsed = parse_args()
    launch(main, parsed.num_gpus, device=parsed.device, args=(parsed,))
