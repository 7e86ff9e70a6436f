"""The registry of mappers, its contract, and the loaders built from a configuration."""

from __future__ import annotations

from semsam.utils.registry import Registry

DATASET_MAPPER = Registry("DATASET_MAPPER")
"""``cls(cfg, is_train)``; ``__call__(dict)`` -> dict with ``image``, ``prompts``, ``instances``,
``targets``, ``height``, ``width``."""
