"""Learning-rate schedules: a factor of the base rate for each iteration, warmed up linearly."""

from __future__ import annotations

import math
from bisect import bisect_right

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from semsam.config import CfgNode


def build_lr_scheduler(cfg: CfgNode, optimizer: Optimizer) -> LambdaLR:
    """Build the schedule that ``SOLVER.LR_SCHEDULER_NAME`` names; step it once an iteration.

    Raises:
        ValueError: for an unknown name, or milestones that do not increase.
    """
    solver = cfg.SOLVER
    name = solver.LR_SCHEDULER_NAME
    if name not in ("WarmupMultiStepLR", "WarmupCosineLR"):
        raise ValueError(
            f"SOLVER.LR_SCHEDULER_NAME is '{name}'; "
            "it must be 'WarmupMultiStepLR' or 'WarmupCosineLR'"
        )
    steps = tuple(solver.STEPS)
    if list(steps) != sorted(set(steps)):
        raise ValueError(f"SOLVER.STEPS is {steps}; iterations must increase")

    def factor(iteration: int) -> float:
        warm = warmup_factor(iteration, solver.WARMUP_ITERS, solver.WARMUP_FACTOR)
        if name == "WarmupCosineLR":
            return warm * cosine_factor(iteration, solver.MAX_ITER)
        return warm * multi_step_factor(iteration, steps, solver.GAMMA)

    return LambdaLR(optimizer, factor)


def warmup_factor(iteration: int, warmup_iters: int, start: float) -> float:
    """Rise from ``start`` at iteration 0 to 1 at ``warmup_iters``, and stay."""
    if iteration >= warmup_iters:
        return 1.0
    return start + (1 - start) * iteration / warmup_iters


def multi_step_factor(iteration: int, steps: tuple[int, ...], gamma: float) -> float:
    """Multiply by ``gamma`` at each of ``steps``, from that iteration on."""
    return gamma ** bisect_right(steps, iteration)


def cosine_factor(iteration: int, max_iter: int) -> float:
    """Half a cosine from 1 at iteration 0 to 0 at ``max_iter``."""
    return 0.5 * (1 + math.cos(math.pi * min(iteration / max_iter, 1.0)))
