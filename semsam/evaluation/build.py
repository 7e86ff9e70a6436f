"""The registry of evaluators, its contract, and the builder."""

from __future__ import annotations

from typing import Any

from semsam.config import CfgNode
from semsam.data import MetadataCatalog
from semsam.utils.registry import Registry

from .evaluator import DatasetEvaluators

EVALUATOR = Registry("EVALUATOR")
"""``cls(cfg, dataset_name)`` gives a ``DatasetEvaluator``: ``reset()``, ``process(inputs,
outputs)``, ``evaluate()`` -> {task: {metric: float}}, the same on every rank."""


def build_evaluator(cfg: CfgNode, dataset_name: str) -> Any:
    """The evaluator, or evaluators, that the dataset's metadata names under ``evaluator_type``.

    Raises:
        ValueError: if the metadata names none, or one that is not registered.
    """
    from . import caption, dense_caption, instance_seg, interactive, panoptic, sem_seg  # noqa: F401  (fill the registry)

    key = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if key is None:
        raise ValueError(
            f"dataset '{dataset_name}' has no evaluator; call "
            f"MetadataCatalog.get('{dataset_name}').set(evaluator_type=...) with one of: "
            f"{', '.join(EVALUATOR)}"
        )
    names = [key] if isinstance(key, str) else key
    return DatasetEvaluators([EVALUATOR.get(name)(cfg, dataset_name) for name in names])
