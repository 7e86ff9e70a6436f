"""Train without the trainer: the same job as ``train_net.py``, as a loop to read and to change.

    python tools/plain_train_net.py --config-file configs/FILE.yaml [--num-gpus N] [KEY VALUE ...]

What the loop leaves out: gradient accumulation, averaged weights, evaluation during training.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from semsam.checkpoint.checkpointer import Checkpointer
from semsam.checkpoint.frozen import FrozenParts
from semsam.config import CfgNode, load_cfg
from semsam.data.build import build_train_loader
from semsam.engine import (
    DefaultTrainer,
    average_scalar_gradients,
    check_losses,
    default_argument_parser,
    default_setup,
    gathered,
    is_sharded,
    launch,
    no_vain_restarts,
    parallelize,
    resume_or_load,
)
from semsam.engine.defaults import amp_dtype
from semsam.modeling.build import build_model
from semsam.solver import build_lr_scheduler, build_optimizer, clip_gradients
from semsam.utils import comm
from semsam.utils.events import ConsoleWriter, EventStorage, JSONWriter

logger = logging.getLogger("semsam.plain_train_net")


def train(cfg: CfgNode, model: torch.nn.Module, resume: bool) -> None:
    """Train from the newest checkpoint, or from MODEL.WEIGHTS, to SOLVER.MAX_ITER."""
    solver = cfg.SOLVER
    shards = is_sharded(cfg)
    bare_model, model = model, parallelize(cfg, model)
    optimizer = build_optimizer(cfg, bare_model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    dtype = amp_dtype(cfg)
    scaler = torch.amp.GradScaler(model.device.type, enabled=dtype == torch.float16)
    storage = EventStorage()
    checkpointer = Checkpointer(
        bare_model,
        cfg.OUTPUT_DIR,
        parts={"optimizer": optimizer, "scheduler": scheduler, "scaler": scaler},
        rank_parts={"storage": storage},
        keep=solver.KEEP_CHECKPOINTS,
        frozen=FrozenParts.from_config(cfg),
        shards=shards,
    )
    state = resume_or_load(cfg, checkpointer, resume)
    if state is None:
        checkpointer.begin_run()
    start = state["iteration"] + 1 if state else 0

    model.train()
    batches = iter(build_train_loader(cfg, start * solver.IMS_PER_BATCH))
    writers = []
    if comm.is_main_process():
        json_writer = JSONWriter(Path(cfg.OUTPUT_DIR) / "metrics.json", start)
        writers = [ConsoleWriter(solver.MAX_ITER), json_writer]
    if state:
        checkpointer.restore_rank(state["ranks"])

    with checkpointer:
        for iteration in range(start, solver.MAX_ITER):
            checkpointer.check()
            batch = next(batches)
            with torch.autocast(model.device.type, dtype, enabled=dtype is not None):
                losses = model(batch)
            total = sum(losses.values())
            numbers = check_losses(losses, batch, iteration)
            optimizer.zero_grad()
            scaler.scale(total).backward()
            average_scalar_gradients(model)
            scaler.unscale_(optimizer)
            clip_gradients(model.parameters(), solver.CLIP_GRADIENT_NORM)
            scaler.step(optimizer)
            scaler.update()

            storage.put_scalars(**numbers, lr=max(scheduler.get_last_lr()))
            scheduler.step()
            last = iteration + 1 == solver.MAX_ITER
            if (iteration + 1) % solver.LOG_PERIOD == 0 or last:
                scalars = storage.take()
                for writer in writers:
                    writer.write(iteration, scalars)
            if (iteration + 1) % solver.CHECKPOINT_PERIOD == 0 or last:
                name = "model_final" if last else f"model_{iteration:07d}"
                checkpointer.save(name, iteration=iteration)


def main(args: argparse.Namespace) -> None:
    """Do the job in one of the processes."""
    cfg = load_cfg(args.config_file, args.opts)
    default_setup(cfg, args)
    model = build_model(cfg)
    if args.eval_only:
        resume_or_load(cfg, Checkpointer(model, cfg.OUTPUT_DIR), args.resume)
    else:
        train(cfg, model, args.resume)
    if cfg.DATASETS.TEST:
        with gathered(model):
            DefaultTrainer.test(cfg, model)


if __name__ == "__main__":
    arguments = default_argument_parser().parse_intermixed_args()
    with no_vain_restarts():
        device = load_cfg(arguments.config_file, arguments.opts).MODEL.DEVICE
    launch(main, arguments.num_gpus, device, (arguments,), arguments.max_restarts)
