"""The training loop, its hooks, and a run from a configuration."""

from .defaults import (
    DefaultTrainer,
    create_ddp_model,
    default_argument_parser,
    default_setup,
    resume_or_load,
)
from .hooks import (
    EvalHook,
    IterationTimer,
    LRScheduler,
    PeriodicCheckpointer,
    PeriodicWriter,
)
from .launch import launch, no_vain_restarts
from .train_loop import HookBase, SimpleTrainer, TrainerBase, check_losses

__all__ = [
    "DefaultTrainer",
    "EvalHook",
    "HookBase",
    "IterationTimer",
    "LRScheduler",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "SimpleTrainer",
    "TrainerBase",
    "check_losses",
    "create_ddp_model",
    "default_argument_parser",
    "default_setup",
    "launch",
    "no_vain_restarts",
    "resume_or_load",
]
