"""Photos, models and records of the original annotation engine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from semsam.annotation.records import MaskedPhoto

from .golden import GOLDEN

FOLDER = GOLDEN / "ssa/engine"


@dataclass(frozen=True)
class EngineRun:
    """One photo in one mode."""

    mode: str
    name: str

    @property
    def models(self) -> Path:
        """Folder of the mode's models."""
        return FOLDER / f"models_{self.mode}"

    @cached_property
    def photo(self) -> MaskedPhoto:
        """The photo as the original read it: its channels are BGR."""
        data = json.loads((FOLDER / "data" / f"{self.name}.json").read_text())
        image = Image.open(FOLDER / "data" / f"{self.name}.png").convert("RGB")
        bgr = np.ascontiguousarray(np.asarray(image)[..., ::-1])
        return MaskedPhoto(self.name, bgr, data["annotations"])

    @cached_property
    def trace(self) -> list[dict]:
        """What happened to each mask."""
        return json.loads((FOLDER / f"trace_{self.mode}_{self.name}.json").read_text())["masks"]

    @cached_property
    def maps(self) -> dict[str, np.ndarray]:
        """Class maps, and every s-th row and column of CLIPSeg's logits."""
        with np.load(FOLDER / f"maps_{self.mode}_{self.name}.npz") as stored:
            return dict(stored)

    @cached_property
    def output(self) -> list[dict]:
        """The annotations that were written."""
        path = FOLDER / f"out_{self.mode}" / f"{self.name}_semantic.json"
        return json.loads(path.read_text())["annotations"]


def engine_runs(what: str) -> list:
    """Parameters, one a run; one that skips where the folder has none."""
    found = []
    for path in sorted(FOLDER.glob("trace_*_*.json")):
        mode, name = path.stem.removeprefix("trace_").split("_", 1)
        found.append(pytest.param(EngineRun(mode, name), id=f"ssa/{mode}-{name}/{what}"))
    if not found:
        skip = pytest.mark.skip(reason=f"no run of the annotation engine in {FOLDER}")
        return [pytest.param(None, marks=skip, id=f"ssa/none/{what}")]
    return found


def misread(patch: Tensor) -> bool:
    """Whether the original's processors took a (3, h, w) patch's three rows for its channels."""
    return patch.shape[1] == 3


def as_read(patch: Tensor) -> Tensor:
    """A (3, h, w) patch as the original's processors read it."""
    return patch.permute(1, 2, 0) if misread(patch) else patch


def decisive(logits: Tensor, mask: np.ndarray, margin: float = 1e-3) -> bool:
    """Whether the winner of (k, h, w) logits stands if those closer than the margin swap."""
    best = logits.flatten(1)[:, mask.ravel()].sort(0, descending=True)
    if len(logits) == 1:
        return True
    close = int((best.values[0] - best.values[1] < margin).sum())
    counts = best.indices[0].bincount(minlength=len(logits)).sort(descending=True).values
    return int(counts[0] - counts[1]) > 2 * close
