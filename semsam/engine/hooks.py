"""What happens around training steps."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler as TorchLRScheduler

from semsam.checkpoint.checkpointer import Checkpointer
from semsam.utils import comm
from semsam.utils.events import EventWriter
from semsam.utils.file_io import atomic_write

from .ema import ModelEMA
from .parallel import whole_state_dict
from .train_loop import HookBase

logger = logging.getLogger(__name__)


class IterationTimer(HookBase):
    """Times each step, without the hooks after this one."""

    def before_train(self) -> None:
        """Start the clock of the whole run."""
        self._start = time.perf_counter()

    def before_step(self) -> None:
        """Start the clock of a step."""
        self._step_start = time.perf_counter()

    def after_step(self) -> None:
        """Record the step's time."""
        self.trainer.storage.put_scalar("time", time.perf_counter() - self._step_start)

    def after_train(self) -> None:
        """Log the run's time."""
        steps = self.trainer.iter - self.trainer.start_iter
        seconds = round(time.perf_counter() - self._start)
        logger.info("%d iterations in %s", steps, datetime.timedelta(seconds=seconds))


class LRScheduler(HookBase):
    """Records the learning rate of a step and sets that of the next.

    Args:
        scheduler: steps once an iteration.
    """

    def __init__(self, scheduler: TorchLRScheduler) -> None:
        self._scheduler = scheduler

    def after_step(self) -> None:
        """Record the highest rate of all groups, then advance."""
        self.trainer.storage.put_scalar("lr", float(max(self._scheduler.get_last_lr())))
        self._scheduler.step()


class EMAHook(HookBase):
    """Averages the weights after each step and leaves ``model_ema.pth`` at the end.

    Args:
        ema: the average.
        output_dir: where the weights go.
    """

    def __init__(self, ema: ModelEMA, output_dir: str | Path) -> None:
        self._ema = ema
        self._path = Path(output_dir) / "model_ema.pth"

    def after_step(self) -> None:
        """Take the new weights into the average."""
        self._ema.update()

    def after_train(self) -> None:
        """Write the averaged weights, in a file like any other checkpoint."""
        with self._ema.applied() as model:
            state = whole_state_dict(model)
            if comm.is_main_process():
                with atomic_write(self._path, "wb") as file:
                    torch.save({"model": state}, file)


class EvalHook(HookBase):
    """Evaluates every ``period`` steps and at the end.

    Args:
        period: 0 for the end alone.
        evaluate: called on every rank; gives nested dicts of numbers, whose paths become scalars.
    """

    def __init__(self, period: int, evaluate: Callable[[], Mapping[str, Any]]) -> None:
        self._period = period
        self._evaluate = evaluate

    def after_step(self) -> None:
        """Evaluate when the period is over; the end has its own evaluation."""
        done = self.trainer.iter + 1
        if self._period and done % self._period == 0 and done < self.trainer.max_iter:
            self._run()

    def after_train(self) -> None:
        """Evaluate the trained model."""
        self._run()

    def _run(self) -> None:
        for name, value in flatten_results(self._evaluate()).items():
            self.trainer.storage.put_scalar(name, value)


def flatten_results(results: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """``{"a": {"b": 1.0}}`` -> ``{"a/b": 1.0}``."""
    flat: dict[str, float] = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            flat.update(flatten_results(value, f"{prefix}{name}/"))
        else:
            flat[f"{prefix}{name}"] = float(value)
    return flat


class PeriodicWriter(HookBase):
    """Hands the scalars to the writers every ``period`` steps, after the last, and at the end.

    Args:
        writers: of the main process; the others have none, but the hook all the same.
        period: steps between lines.
    """

    def __init__(self, writers: Sequence[EventWriter], period: int) -> None:
        self._writers = writers
        self._period = period

    def after_step(self) -> None:
        """Write when the period is over."""
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            self._write()

    def after_train(self) -> None:
        """Write what the hooks before this one found at the end."""
        self._write()
        for writer in self._writers:
            writer.close()

    def _write(self) -> None:
        scalars = self.trainer.storage.take()
        for writer in self._writers if scalars else ():
            writer.write(self.trainer.iter, scalars)


class PeriodicCheckpointer(HookBase):
    """Saves every ``period`` steps, and ``model_final`` after the last.

    An error of writing ends training with the step in which it shows. It comes after the hooks
    whose work a checkpoint has to hold.

    Args:
        checkpointer: writes the files.
        period: steps between checkpoints.
    """

    def __init__(self, checkpointer: Checkpointer, period: int) -> None:
        self._checkpointer = checkpointer
        self._period = period

    def after_step(self) -> None:
        """Save when the period is over."""
        self._checkpointer.check()
        iteration = self.trainer.iter
        if iteration + 1 == self.trainer.max_iter:
            self._checkpointer.save("model_final", iteration=iteration)
        elif (iteration + 1) % self._period == 0:
            self._checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
