r"""IoU of a segmenter, and of the same after masks have voted (SSA), on a dataset.

    python tools/evaluate_labels.py --config-file configs/ssa/closed_cityscapes.yaml \
        --dataset cityscapes://cityscapes --results results

The segmenter is the first of ANNOTATION.CLOSED_SET.SEGMENTERS. Photos without a file in --results
are annotated first, as by tools/annotate.py, so that an interrupted run goes on. Without --results
the segmenter is evaluated alone; with --results-only the files are, and no model is needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from semsam.annotation.closed_set import build_segmenters
from semsam.annotation.engine import build_engine
from semsam.annotation.records import RESULT_SUFFIX
from semsam.config import CfgNode, load_cfg
from semsam.data import DatasetCatalog, MetadataCatalog
from semsam.data.photos import Photos
from semsam.data.semantic_mask import read_semantic_mask
from semsam.engine import launch
from semsam.evaluation import inference_on_dataset, print_table
from semsam.evaluation.evaluator import Results
from semsam.evaluation.sem_seg import SemSegEvaluator
from semsam.utils import comm
from semsam.utils.file_io import write_json
from semsam.utils.logger import setup_logger

Batch = list[dict[str, Any]]


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="yaml file of the annotation")
    parser.add_argument("--dataset", required=True, help="registered name or scheme://PATH")
    parser.add_argument(
        "--results", help="folder of SSA's results; what it lacks is added, by the configuration"
    )
    parser.add_argument(
        "--results-only", action="store_true", help="evaluate what --results has, add nothing"
    )
    parser.add_argument("--output", help="json file for the numbers")
    parser.add_argument(
        "--num-gpus", type=int, default=1, help="workers; CPU processes without GPU"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides; also KEY=VALUE")
    found = parser.parse_intermixed_args(arguments)
    if found.results_only and not found.results:
        parser.error("--results-only needs --results")
    return found


def main(args: argparse.Namespace) -> None:
    """Do the job in one of the processes."""
    setup_logger()
    cfg = load_cfg(args.config_file, args.opts)
    results: Results = {}
    if not args.results_only:
        results |= evaluate(cfg, args.dataset, "segmenter", segmenter(cfg, args.dataset))
    if args.results and not args.results_only:
        build_engine(cfg, photo_folder(args.dataset)).run(args.results)
    if args.results:
        results |= evaluate(cfg, args.dataset, "SSA", reader(Path(args.results)))
    print_table(results)
    if args.output and comm.is_main_process():
        write_json(args.output, results)


def evaluate(cfg: CfgNode, dataset: str, task: str, labels: Callable[[Batch], Any]) -> Results:
    """Evaluate label maps over a dataset, reported as ``task``."""
    return inference_on_dataset(labels, Photos(dataset), SemSegEvaluator(cfg, dataset, task=task))


def segmenter(cfg: CfgNode, dataset: str) -> Callable[[Batch], list[dict[str, Any]]]:
    """Label maps by the segmenter of a configuration.

    Raises:
        ValueError: if it has another number of classes than the dataset.
    """
    model = build_segmenters(cfg)[0]
    classes = MetadataCatalog.get(dataset).get("stuff_classes", [])
    if len(model.labels) != len(classes):
        raise ValueError(
            f"the segmenter has {len(model.labels)} classes, '{dataset}' has {len(classes)}"
        )

    def segment(batch: Batch) -> list[dict[str, Any]]:
        maps = model.segment([record["photo"] for record in batch])
        return [{"sem_seg": labels} for labels in maps]

    return segment


def photo_folder(dataset: str) -> Path:
    """The folder in which the photos of a dataset are called by their ``image_id``.

    Raises:
        ValueError: if there is no such folder.
    """
    folders = set()
    for record in DatasetCatalog.get(dataset):
        stem, name = Path(record["file_name"]).with_suffix(""), Path(str(record["image_id"]))
        folder = stem.parents[len(name.parts) - 1]
        if folder / name != stem:
            raise ValueError(
                f"'{record['file_name']}' is not called by its image_id '{name}', as results are"
            )
        folders.add(folder)
    if len(folders) != 1:
        raise ValueError(f"the photos of '{dataset}' lie in {len(folders)} folders, not in one")
    return folders.pop()


def reader(folder: Path) -> Callable[[Batch], list[dict[str, Any]]]:
    """Label maps from files of results."""

    def read(batch: Batch) -> list[dict[str, Any]]:
        paths = [folder / f"{record['image_id']}{RESULT_SUFFIX}" for record in batch]
        return [{"sem_seg": read_semantic_mask(path)} for path in paths]

    return read


if __name__ == "__main__":
    parsed = parse_args()
    device = load_cfg(parsed.config_file, parsed.opts).MODEL.DEVICE
    launch(main, parsed.num_gpus, device=device, args=(parsed,))
