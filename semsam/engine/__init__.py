"""The training loop, its hooks, and a run from a configuration."""

from .defaults import (
    DefaultTrainer,
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
from .parallel import (
    average_scalar_gradients,
    create_ddp_model,
    gathered,
    is_sharded,
    parallelize,
)
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
    "average_scalar_gradients",
    "check_losses",
    "create_ddp_model",
    "default_argument_parser",
    "default_setup",
    "gathered",
    "is_sharded",
    "launch",
    "no_vain_restarts",
    "parallelize",
    "resume_or_load",
]
