"""Optimizer groups, gradient clipping and learning-rate schedules."""

from .lr_scheduler import build_lr_scheduler
from .optimizer import build_optimizer, clip_gradients

__all__ = ["build_lr_scheduler", "build_optimizer", "clip_gradients"]
