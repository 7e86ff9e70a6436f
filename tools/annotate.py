r"""Name every mask of a folder of photos, or of one photo.

    python tools/annotate.py --config-file configs/ssa/engine_light.yaml photos results
    python tools/annotate.py --config-file configs/ssa/closed_coco.yaml photo.jpg results \
        --save-img ANNOTATION.MASKS.NAME GeneratedMasks ANNOTATION.MASKS.MODEL sam-vit-h

Masks are those of SA-1B's json files beside the photos, or come from where ANNOTATION.MASKS says.
results/NAME_semantic.json is the result of a photo, failures.jsonl says which photos could not be
done and why. Stop it at any moment: the same command goes on where it was.
"""

from __future__ import annotations

import argparse

from semsam.annotation.engine import build_engine
from semsam.annotation.plan import describe_plan
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
    parser.add_argument("images", help="folder of photos, or one photo")
    parser.add_argument("output", help="folder for the results")
    parser.add_argument(
        "--save-img", action="store_true", help="leave a picture of each photo's named masks too"
    )
    parser.add_argument(
        "--num-gpus", type=int, default=1, help="workers; CPU processes without GPU"
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
    engine = build_engine(load_cfg(args.config_file, args.opts), args.images)
    if not args.dry_run:
        engine.run(args.output, resume=args.resume, save_img=args.save_img)
    elif comm.is_main_process():
        print(describe_plan(engine))


if __name__ == "__main__":
    parsed = parse_args()
    cfg = load_cfg(parsed.config_file, parsed.opts)
    launch(main, parsed.num_gpus, device=cfg.MODEL.DEVICE, args=(parsed,))
