r"""Name every mask of a folder of photos, or of one photo.

    python tools/annotate.py --config-file configs/ssa/engine_light.yaml photos results
    python tools/annotate.py --config-file configs/ssa/closed_coco.yaml photo.jpg results \
        --save-img ANNOTATION.MASKS.NAME GeneratedMasks ANNOTATION.MASKS.MODEL sam-vit-h

Masks are those of SA-1B's json files beside the photos, or come from where ANNOTATION.MASKS says.
results/NAME_semantic.json is the result of a photo, failures.jsonl says which photos could not be
done and why. Stop it at any moment: the same command goes on where it was.

    python tools/annotate.py --config-file configs/ssa/engine_base.yaml photos results --num-gpus 8
    python tools/annotate.py ... --ray auto --num-gpus 64 --format parquet    # on a cluster
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from semsam.annotation.engine import AnnotationEngine, build_engine
from semsam.annotation.plan import describe_plan
from semsam.annotation.ray_data import annotate_on_ray
from semsam.config import load_cfg
from semsam.engine import launch
from semsam.utils import comm
from semsam.utils.logger import setup_logger


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="torchrun --nproc-per-node N annotate.py ... starts the workers of many machines.",
    )
    parser.add_argument("--config-file", required=True, help="yaml file")
    parser.add_argument("images", help="folder of photos or of TSV shards, or one photo")
    parser.add_argument("output", help="folder for the results")
    parser.add_argument(
        "--save-img", action="store_true", help="leave a picture of each photo's named masks too"
    )
    parser.add_argument(
        "--format",
        choices=("json", "parquet"),
        default="json",
        help="parquet: the jsons are moved into parquet files at the end",
    )
    parser.add_argument(
        "--num-gpus", type=int, default=1, help="workers; CPU processes without GPU"
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="let Ray start the workers: on the cluster of this address (auto finds it), or here",
    )
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on with what the output folder holds (the default), or do everything anew",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="load the models, say what would be done, do nothing"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides; also KEY=VALUE")
    return parser.parse_intermixed_args(arguments)


def main(args: argparse.Namespace) -> None:
    """Do the job in one of the processes."""
    setup_logger()
    engine = make_engine(args.config_file, args.opts, args.images)
    if args.dry_run:
        if comm.is_main_process():
            print(describe_plan(engine))
        return
    engine.run(args.output, args.resume, args.save_img, parquet=args.format == "parquet")


def main_on_ray(args: argparse.Namespace, device: str) -> None:
    """Do the job in processes that Ray starts."""
    setup_logger()
    annotate_on_ray(
        # Workers on other machines have no working directory to start from.
        partial(
            make_engine,
            str(Path(args.config_file).absolute()),
            args.opts,
            str(Path(args.images).absolute()),
        ),
        args.output,
        num_workers=args.num_gpus,
        address=args.ray,
        device=device,
        resume=args.resume,
        save_img=args.save_img,
        parquet=args.format == "parquet",
    )


def make_engine(config_file: str, opts: list[str], images: str) -> AnnotationEngine:
    """The engine that a yaml file describes."""
    return build_engine(load_cfg(config_file, opts), images)


if __name__ == "__main__":
    parsed = parse_args()
    device = load_cfg(parsed.config_file, parsed.opts).MODEL.DEVICE
    if parsed.ray and not parsed.dry_run:
        main_on_ray(parsed, device)
    else:
        launch(main, parsed.num_gpus, device=device, args=(parsed,))
