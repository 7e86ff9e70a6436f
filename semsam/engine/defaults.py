"""A training run from a configuration: what ``tools/train_net.py`` does, in parts to override."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler as TorchLRScheduler

from semsam.checkpoint import load_backbone_weights, load_weights
from semsam.checkpoint.checkpointer import Checkpointer, Stateful, begun_mark
from semsam.checkpoint.frozen import FrozenParts
from semsam.config import CfgNode
from semsam.data.build import build_test_loader, build_train_loader
from semsam.evaluation.build import build_evaluator
from semsam.evaluation.evaluator import inference_on_dataset, print_table
from semsam.modeling.build import build_model
from semsam.solver import build_lr_scheduler, build_optimizer
from semsam.utils import comm, elastic
from semsam.utils.env import collect_env, seed_everything
from semsam.utils.events import ConsoleWriter, EventWriter, JSONWriter, TensorBoardWriter
from semsam.utils.file_io import atomic_write, write_json
from semsam.utils.logger import setup_logger

from . import hooks
from .ema import ModelEMA
from .launch import MAX_RESTARTS
from .parallel import gathered, is_sharded, parallelize
from .train_loop import HookBase, SimpleTrainer

logger = logging.getLogger(__name__)


def default_argument_parser() -> argparse.ArgumentParser:
    """The options of the training tools; call ``parse_intermixed_args`` to take overrides anywhere.

    ``KEY VALUE`` and ``KEY=VALUE`` overrides are in ``opts``.
    """
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="torchrun --nproc-per-node N train_net.py ... starts the workers of many machines.",
    )
    parser.add_argument("--config-file", "--config_file", required=True, help="yaml file")
    parser.add_argument(
        "--num-gpus", "--num_gpus", type=int, default=1, help="workers; CPU processes without a GPU"
    )
    parser.add_argument(
        "--max-restarts",
        "--max_restarts",
        type=int,
        metavar="N",
        help="how often workers that died are started again, to go on from the newest checkpoint; "
        f"{MAX_RESTARTS} with several workers, 0 with one, which then is this process",
    )
    parser.add_argument(
        "--eval-only", "--eval_only", action="store_true", help="evaluate, do not train"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint in OUTPUT_DIR"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides; also KEY=VALUE")
    return parser


def default_setup(cfg: CfgNode, args: argparse.Namespace | None = None) -> None:
    """Make OUTPUT_DIR, start logging, seed, and leave the configuration there as ``config.yaml``.

    A negative SEED becomes a fresh one, the same on all ranks, or that of the run which is resumed
    (``goes_on``). Each rank draws differently.
    """
    output_dir = Path(cfg.OUTPUT_DIR)
    written = output_dir / "config.yaml"
    output_dir.mkdir(parents=True, exist_ok=True)
    setup_logger(output_dir)
    logger.info("environment:\n%s", collect_env())
    logger.info("%d processes; command line: %s", comm.get_world_size(), args)

    if cfg.SEED < 0:
        frozen = cfg.is_frozen()
        cfg.defrost()
        if args is not None and goes_on(cfg, args.resume) and written.is_file():
            cfg.SEED = yaml.safe_load(written.read_text())["SEED"]
        cfg.SEED = comm.broadcast(seed_everything(cfg.SEED))
        if frozen:
            cfg.freeze()
    seed_everything(cfg.SEED + comm.get_rank())

    logger.info("configuration:\n%s", cfg.dump())
    if comm.is_main_process():
        with atomic_write(written) as file:
            file.write(cfg.dump())
    comm.synchronize()


def goes_on(cfg: CfgNode, resume: bool) -> bool:
    """Whether a run resumes: if asked to, and where its workers had begun before a restart.

    Until they have, what lies in OUTPUT_DIR is an earlier run's. Every rank has to call it.
    """
    return comm.broadcast(resume or elastic.is_noted(begun_mark(cfg.OUTPUT_DIR)))


def resume_or_load(cfg: CfgNode, checkpointer: Checkpointer, resume: bool) -> dict[str, Any] | None:
    """Fill the model: from OUTPUT_DIR's newest checkpoint if ``goes_on``, else from MODEL.WEIGHTS.

    Returns:
        What ``Checkpointer.resume`` returns; None if nothing was resumed.
    """
    state = checkpointer.resume() if goes_on(cfg, resume) else None
    if state is None:
        if cfg.MODEL.BACKBONE.WEIGHTS:
            backbone = checkpointer.model.get_submodule("backbone")
            load_backbone_weights(backbone, cfg.MODEL.BACKBONE.WEIGHTS)
        if cfg.MODEL.WEIGHTS:
            load_weights(checkpointer.model, cfg.MODEL.WEIGHTS)
    return state


class DefaultTrainer(SimpleTrainer):
    """Trains what a configuration describes.

    Override ``build_*``, ``test`` or ``build_hooks`` to change a part::

        trainer = DefaultTrainer(cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()

    Args:
        cfg: the configuration.

    Raises:
        ValueError: if a value of SOLVER is not accepted.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg
        shards = is_sharded(cfg)
        model = parallelize(cfg, self.build_model(cfg))
        bare_model = getattr(model, "module", model)
        optimizer = self.build_optimizer(cfg, bare_model)
        super().__init__(
            model,
            (),  # the loader is built by train(), at the sample where training starts
            optimizer,
            grad_accumulation=cfg.SOLVER.GRAD_ACCUMULATION,
            amp_dtype=amp_dtype(cfg),
            max_grad_norm=cfg.SOLVER.CLIP_GRADIENT_NORM,
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        parts: dict[str, Stateful] = {
            "optimizer": optimizer,
            "scheduler": self.scheduler,
            "scaler": self.scaler,
        }
        self.ema: ModelEMA | None = None
        if cfg.SOLVER.EMA.ENABLED:
            parts["ema"] = self.ema = ModelEMA(bare_model, cfg.SOLVER.EMA.DECAY)
        self.checkpointer = Checkpointer(
            model,
            cfg.OUTPUT_DIR,
            parts=parts,
            rank_parts={"storage": self.storage},
            keep=cfg.SOLVER.KEEP_CHECKPOINTS,
            frozen=FrozenParts.from_config(cfg),
            shards=shards,
        )
        self._rank_states: list[dict[str, Any]] = []

    @property
    def bare_model(self) -> nn.Module:
        """The model without its wrapper for several processes."""
        return getattr(self.model, "module", self.model)

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the newest whole checkpoint in OUTPUT_DIR, or start from MODEL.WEIGHTS."""
        state = resume_or_load(self.cfg, self.checkpointer, resume)
        if state is not None:
            self.start_iter = state["iteration"] + 1
            self._rank_states = state["ranks"]
            return
        if self.ema is not None:
            self.ema.reset()

    def train(self) -> dict[str, Any]:  # type: ignore[override]  # detectron2's signature
        """Train to SOLVER.MAX_ITER.

        Returns:
            Results of the last evaluation by dataset; empty if DATASETS.TEST is.
        """
        start = self.start_iter
        # A wrong setting of the evaluation shows now, not after the training.
        for name in self.cfg.DATASETS.TEST:
            self.build_evaluator(self.cfg, name)
        if not self._rank_states:
            self.checkpointer.begin_run()
        self.data_loader = self.build_train_loader(self.cfg, start * self.cfg.SOLVER.IMS_PER_BATCH)
        self.results: dict[str, Any] = {}
        self.register_hooks(self.build_hooks())
        with self.checkpointer:
            super().train(start, self.cfg.SOLVER.MAX_ITER)
        return self.results

    def before_train(self) -> None:
        """Run the hooks, then restore random states: nothing draws between here and the steps."""
        super().before_train()
        if self._rank_states:
            self.checkpointer.restore_rank(self._rank_states)

    def build_hooks(self) -> list[HookBase]:
        """The hooks, in the order in which they have to run."""
        solver = self.cfg.SOLVER
        built: list[HookBase] = [hooks.IterationTimer(), hooks.LRScheduler(self.scheduler)]
        if self.ema is not None:
            built.append(hooks.EMAHook(self.ema, self.cfg.OUTPUT_DIR))
        if self.cfg.DATASETS.TEST:
            built.append(hooks.EvalHook(self.cfg.TEST.EVAL_PERIOD, self._evaluate))
        # The checkpoint comes last: it holds what the line before it has not said yet.
        built.append(hooks.PeriodicWriter(self.build_writers(), solver.LOG_PERIOD))
        built.append(hooks.PeriodicCheckpointer(self.checkpointer, solver.CHECKPOINT_PERIOD))
        return built

    def build_writers(self) -> list[EventWriter]:
        """Console, ``metrics.json`` and TensorBoard on the main process."""
        if not comm.is_main_process():
            return []
        folder = Path(self.cfg.OUTPUT_DIR)
        return [
            ConsoleWriter(self.cfg.SOLVER.MAX_ITER),
            JSONWriter(folder / "metrics.json", self.start_iter),
            TensorBoardWriter(folder, self.start_iter),
        ]

    def _evaluate(self) -> dict[str, Any]:
        with (
            self.ema.applied() if self.ema else contextlib.nullcontext(),
            gathered(self.bare_model) as model,
        ):
            self.results = self.test(self.cfg, model)
        return self.results

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The model on its device, with the same weights on every rank."""
        model = build_model(cfg)
        comm.broadcast_module(model)
        number = sum(p.numel() for p in model.parameters())
        logger.info("model:\n%s\n%.2f M parameters", model, number / 1e6)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> Optimizer:
        """The optimizer of the model's trainable parameters."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: Optimizer) -> TorchLRScheduler:
        """The schedule; steps once an iteration."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, start_sample: int = 0) -> Iterable[list[dict]]:
        """An endless loader of this rank's batches; the run has used ``start_sample`` samples."""
        return build_train_loader(cfg, start_sample)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict]]:
        """This rank's share of a dataset, once."""
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """The evaluator that the dataset's metadata names."""
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        """Evaluate on each of DATASETS.TEST; the results are also in OUTPUT_DIR/results.json.

        Returns:
            {dataset: {task: {metric: float}}}, the same on every rank.

        Raises:
            ValueError: if DATASETS.TEST is empty.
        """
        if not cfg.DATASETS.TEST:
            raise ValueError("DATASETS.TEST is empty: name the datasets to evaluate on")
        results = {}
        for name in cfg.DATASETS.TEST:
            evaluator = cls.build_evaluator(cfg, name)
            loader = cls.build_test_loader(cfg, name)
            results[name] = inference_on_dataset(model, loader, evaluator)
            print_table(results[name])
        if comm.is_main_process():
            write_json(Path(cfg.OUTPUT_DIR) / "results.json", results)
        return results


def amp_dtype(cfg: CfgNode) -> torch.dtype | None:
    """SOLVER.AMP as a dtype, None if it is off.

    Raises:
        ValueError: if SOLVER.AMP.DTYPE is neither bfloat16 nor float16.
    """
    known = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    if cfg.SOLVER.AMP.DTYPE not in known:
        raise ValueError(f"SOLVER.AMP.DTYPE is {' or '.join(known)}, not '{cfg.SOLVER.AMP.DTYPE}'")
    return known[cfg.SOLVER.AMP.DTYPE] if cfg.SOLVER.AMP.ENABLED else None
