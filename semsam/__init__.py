"""semsam: promptable segmentation at every granularity.

The public names below are imported on first use, so that ``import semsam`` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semsam import model_zoo
    from semsam.config import get_cfg, load_cfg
    from semsam.inference import AutomaticMaskGenerator, RegionCaptioner, SemSamPredictor
    from semsam.modeling import build_model
    from semsam.utils.visualizer import Visualizer

__version__ = "0.1.0"

_HOME = {
    "AutomaticMaskGenerator": "semsam.inference",
    "RegionCaptioner": "semsam.inference",
    "SemSamPredictor": "semsam.inference",
    "Visualizer": "semsam.utils.visualizer",
    "build_model": "semsam.modeling",
    "get_cfg": "semsam.config",
    "load_cfg": "semsam.config",
}

__all__ = [
    "AutomaticMaskGenerator",
    "RegionCaptioner",
    "SemSamPredictor",
    "Visualizer",
    "build_model",
    "get_cfg",
    "load_cfg",
    "model_zoo",
]


def __getattr__(name: str) -> Any:
    if name == "model_zoo":
        return importlib.import_module("semsam.model_zoo")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'semsam' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
