"""Train and evaluate the model that a yaml file describes.

python tools/train_net.py --config-file configs/FILE.yaml [--num-gpus N] [KEY VALUE ...]
python tools/train_net.py --config-file configs/FILE.yaml --resume
python tools/train_net.py --config-file configs/FILE.yaml --eval-only MODEL.WEIGHTS FILE.pth
"""

from __future__ import annotations

import argparse
import logging

from semsam.checkpoint.checkpointer import Checkpointer
from semsam.config import load_cfg
from semsam.engine import (
    DefaultTrainer,
    default_argument_parser,
    default_setup,
    launch,
    no_vain_restarts,
    resume_or_load,
)

logger = logging.getLogger("semsam.train_net")


def main(args: argparse.Namespace) -> None:
    """Do the job in one of the processes."""
    cfg = load_cfg(args.config_file, args.opts)
    default_setup(cfg, args)
    if not args.eval_only:
        trainer = DefaultTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()
        return
    model = DefaultTrainer.build_model(cfg)
    resumed = resume_or_load(cfg, Checkpointer(model, cfg.OUTPUT_DIR), args.resume)
    if not resumed and not cfg.MODEL.WEIGHTS:
        logger.warning("MODEL.WEIGHTS is empty: evaluating a random initialisation")
    DefaultTrainer.test(cfg, model)


if __name__ == "__main__":
    arguments = default_argument_parser().parse_intermixed_args()
    with no_vain_restarts():
        device = load_cfg(arguments.config_file, arguments.opts).MODEL.DEVICE
    launch(main, arguments.num_gpus, device, (arguments,), arguments.max_restarts)
