"""The registries of labellers and of sources of masks, and their builders."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from semsam.config import CfgNode
from semsam.utils.registry import Registry

LABELER = Registry("LABELER")
"""``cls(cfg)``, models loaded once; ``label(Sequence[MaskedPhoto])`` -> a ``Labels`` a photo."""

MASK_SOURCE = Registry("MASK_SOURCE")
"""``cls(cfg, images)`` is a ``semsam.annotation.mask_sources.MaskSource``."""


def build_labelers(cfg: CfgNode) -> list[Any]:
    """The labellers that ``cfg.ANNOTATION.LABELERS`` names, in that order.

    Raises:
        ValueError: if there is none, or one is not registered.
    """
    _import_all_parts()
    names = list(cfg.ANNOTATION.LABELERS)
    if not names:
        raise ValueError(
            f"ANNOTATION.LABELERS names no labeller; there are: {', '.join(LABELER) or 'none'}"
        )
    return [LABELER.get(name)(cfg) for name in names]


def build_mask_source(cfg: CfgNode, images: str | Path) -> Any:
    """The source of masks that ``cfg.ANNOTATION.MASKS.NAME`` names, on a folder or one image."""
    _import_all_parts()
    return MASK_SOURCE.get(cfg.ANNOTATION.MASKS.NAME)(cfg, images)


def _import_all_parts() -> None:
    """Import every module of this package, so that the registries are full."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{module.name}")
