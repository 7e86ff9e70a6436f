"""The registry of evaluators, its contract, and the builder."""

from __future__ import annotations

from semsam.utils.registry import Registry

EVALUATOR = Registry("EVALUATOR")
"""``cls(cfg, dataset_name)``; ``reset()``, ``process(inputs, outputs)``, ``evaluate()`` -> {task:
{metric: float}}, the same on every rank."""
