"""The training loop: one step after another, and hooks for everything else."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from semsam.solver import clip_gradients
from semsam.utils import comm
from semsam.utils.events import EventStorage

from .parallel import average_scalar_gradients

logger = logging.getLogger(__name__)


class HookBase:
    """What happens around training steps; a hook overrides what it needs.

    ``trainer`` is set when the hook is registered. Within a step ``trainer.iter`` is the number of
    that step; in ``after_train`` it is the number of steps done.
    """

    trainer: TrainerBase

    def before_train(self) -> None:
        """Before the first step."""

    def after_train(self) -> None:
        """After the last step, unless training failed."""

    def before_step(self) -> None:
        """Before each step."""

    def after_step(self) -> None:
        """After each step."""


class TrainerBase:
    """Runs steps and hooks; ``run_step`` is the subclass's."""

    def __init__(self) -> None:
        self.iter = self.start_iter = self.max_iter = 0
        self.storage = EventStorage()
        self._hooks: list[HookBase] = []

    def register_hooks(self, hooks: Sequence[HookBase]) -> None:
        """Add hooks; they run in this order."""
        for hook in hooks:
            hook.trainer = self
            self._hooks.append(hook)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run steps ``start_iter`` to ``max_iter - 1``."""
        self.iter, self.start_iter, self.max_iter = start_iter, start_iter, max_iter
        logger.info("training from iteration %d to %d", start_iter, max_iter)
        try:
            self.before_train()
            for self.iter in range(start_iter, max_iter):
                self.before_step()
                self.run_step()
                self.after_step()
            self.iter = max(start_iter, max_iter)
            self.after_train()
        except Exception:
            logger.exception("training stopped at iteration %d", self.iter)
            raise

    def before_train(self) -> None:
        """Run the hooks' ``before_train``."""
        for hook in self._hooks:
            hook.before_train()

    def after_train(self) -> None:
        """Run the hooks' ``after_train``."""
        for hook in self._hooks:
            hook.after_train()

    def before_step(self) -> None:
        """Run the hooks' ``before_step``."""
        for hook in self._hooks:
            hook.before_step()

    def after_step(self) -> None:
        """Run the hooks' ``after_step``."""
        for hook in self._hooks:
            hook.after_step()

    def run_step(self) -> None:
        """Do one step."""
        raise NotImplementedError


class SimpleTrainer(TrainerBase):
    """One optimizer step: forward, backward, clip, update; in mixed precision if asked.

    Args:
        model: list of records -> dict of weighted losses; maybe wrapped for several processes.
        data_loader: endless; its items are what the model takes.
        optimizer: of the model's parameters.
        grad_accumulation: forward-backward passes in a step; each takes an item of the loader, and
            its losses count as one part of so many.
        amp_dtype: ``torch.bfloat16`` or ``torch.float16`` (with loss scaling) for mixed precision;
            None for float32.
        max_grad_norm: the whole gradient is scaled down to this norm; 0 leaves it.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: Optimizer,
        *,
        grad_accumulation: int = 1,
        amp_dtype: torch.dtype | None = None,
        max_grad_norm: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.grad_accumulation = grad_accumulation
        self.amp_dtype = amp_dtype
        self.max_grad_norm = max_grad_norm
        self.device = next(model.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=amp_dtype == torch.float16)
        self._batches: Iterator[Any] = iter(())

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run steps ``start_iter`` to ``max_iter - 1``."""
        self.model.train()
        self._batches = iter(self.data_loader)
        super().train(start_iter, max_iter)

    def run_step(self) -> None:
        """Do one optimizer step.

        Raises:
            FloatingPointError: on all ranks, if a loss of one, or the gradient, is not finite; the
                weights and the optimizer are those before the step.
        """
        self.optimizer.zero_grad(set_to_none=True)
        images: list[str] = []
        for part in range(self.grad_accumulation):
            started = time.perf_counter()
            batch = next(self._batches)
            self.storage.put_scalar("data_time", time.perf_counter() - started)
            images += _image_names(batch)
            with self._gradient_sync(last=part == self.grad_accumulation - 1):
                with torch.autocast(
                    self.device.type, self.amp_dtype, enabled=self.amp_dtype is not None
                ):
                    losses = self.model(batch)
                total = sum(losses.values()) / self.grad_accumulation
                self.storage.put_scalars(**check_losses(losses, batch, self.iter))
                self.scaler.scale(total).backward()
        average_scalar_gradients(self.model)
        self._clip(images)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _clip(self, images: Sequence[str]) -> None:
        if self.scaler.is_enabled() and not self.max_grad_norm:
            return
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.model.parameters(), self.max_grad_norm).item()
        if math.isfinite(norm):
            self.storage.put_scalar("grad_norm", norm)
        elif not self.scaler.is_enabled():  # the scaler skips such a step and lowers its scale
            shown = ", ".join(name for rank in comm.all_gather(images) for name in rank)
            raise FloatingPointError(
                f"the gradient at iteration {self.iter} is not finite although the loss is "
                f"(images: {shown}); the weights are those before this step"
            )

    def _gradient_sync(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        # Ranks exchange gradients in the last pass of a step alone.
        if last or not isinstance(self.model, nn.parallel.DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()


def check_losses(losses: dict[str, Tensor], batch: Any, iteration: int) -> dict[str, float]:
    """The losses as numbers, and their sum as ``total_loss``; every rank has to call it.

    Args:
        losses: scalars.
        batch: what they are of; records with a ``file_name`` are named in the error.
        iteration: number of the step, for the error.

    Raises:
        FloatingPointError: on every rank, if a loss of one is not finite.
    """
    tensor = torch.stack([value.detach().float() for value in losses.values()])
    bad = comm.all_reduce_sum((~tensor.isfinite()).any().float())
    # One transfer from the device for all of them.
    *values, bad_ranks = torch.cat([tensor, bad[None]]).tolist()
    named = dict(zip(losses, values, strict=True))
    if not bad_ranks:
        return {"total_loss": sum(values), **named}
    own = ", ".join(f"{name} {v:.4g}" for name, v in named.items() if not math.isfinite(v))
    found = comm.all_gather((own, ", ".join(_image_names(batch)) or "unknown"))
    shown = "; ".join(f"rank {r}: {bad} (images: {i})" for r, (bad, i) in enumerate(found) if bad)
    raise FloatingPointError(
        f"the loss at iteration {iteration} is not finite: {shown}; the weights are those before "
        "this step"
    )


def _image_names(batch: Any) -> list[str]:
    return [r["file_name"] for r in batch if isinstance(r, dict) and "file_name" in r]
