"""Mask AP and AR of the automatic mask generator on a dataset.

    python tools/evaluate_masks.py --model semantic-sam-swin-t --dataset 'coco_panoptic:///data/coco'
    python tools/evaluate_masks.py --model output/run --dataset sa1b_tsv_val --num-gpus 8

Every object of the dataset counts as one class; masks are compared in the photo's frame and ranked
by predicted IoU. An unreadable image is named and left out.
"""

from __future__ import annotations

import argparse
from typing import Any

from semsam import AutomaticMaskGenerator, model_zoo
from semsam.data.photos import Photos
from semsam.engine import launch
from semsam.evaluation import inference_on_dataset, print_table
from semsam.evaluation.coco import AutomaticMaskEvaluator
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
    parser.add_argument("--dataset", required=True, help="registered name or scheme://PATH")
    parser.add_argument("--output", help="json file for the results")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--num-gpus", type=int, default=1, help="workers; CPU processes without GPU"
    )
    parser.add_argument("--min-size", type=int, help="shorter side of the input")
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--pred-iou-thresh", type=float, default=0.88)
    parser.add_argument("--stability-score-thresh", type=float, default=0.92)
    return parser.parse_args(arguments)


def main(args: argparse.Namespace) -> None:
    """Do the job in one of the processes."""
    setup_logger()
    model: Any = model_zoo.get(args.model, args.device, weights=args.weights)
    generator = AutomaticMaskGenerator(
        model,
        points_per_side=args.points_per_side,
        pred_iou_thresh=args.pred_iou_thresh,
        stability_score_thresh=args.stability_score_thresh,
        output_mode="coco_rle",
        min_size=args.min_size,
    )

    def find_masks(batch: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        return [generator.generate(record["photo"]) for record in batch]

    results = inference_on_dataset(find_masks, Photos(args.dataset), AutomaticMaskEvaluator())
    print_table(results)
    if args.output and comm.is_main_process():
        write_json(args.output, results)


if __name__ == "__main__":
    parsed = parse_args()
    launch(main, parsed.num_gpus, device=parsed.device, args=(parsed,))
