"""Where the fixtures of the original implementations are, and how one becomes a test case.

``SEMSAM_GOLDEN`` names the folder; the small set in ``tests/golden`` is the default.
"""

from __future__ import annotations

import json
import os
import tempfile
from functools import cached_property
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from semsam.checkpoint import load_weights
from semsam.config import CfgNode, get_cfg
from semsam.modeling import build_model

GOLDEN = Path(os.environ.get("SEMSAM_GOLDEN", Path(__file__).parents[1] / "golden"))
SEMANTIC_SAM = "semantic_sam"


class Fixture:
    """One fixture: ``meta`` is its json, ``fixture["in.image"]`` one of its tensors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        self.meta = json.loads(path.read_text())

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        return load_file(self.path.with_suffix(".safetensors"))

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.tensors[key]

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def numbered(self, prefix: str) -> list[torch.Tensor]:
        """Tensors called ``prefix.NNN.*`` in order."""
        return [self.tensors[k] for k in sorted(self.tensors) if k.startswith(f"{prefix}.")]

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The original's state dict: ``model.`` prefix, tied copies."""
        return load_file(self.path.parent / self.meta["weights"])


def all_fixtures(folder: str) -> list[Fixture]:
    """Every fixture of a folder that states its kind."""
    paths = sorted((GOLDEN / folder).glob("*.json"))
    return [f for f in map(Fixture, paths) if isinstance(f.meta, dict) and "kind" in f.meta]


def cases(folder: str, kind: str, *what: str) -> list:
    """Parameters ``(fixture, what)`` of every fixture of a kind, for ``pytest.mark.parametrize``.

    Where the folder has none, one case is left that skips and says so.
    """
    found = [f for f in all_fixtures(folder) if f.meta["kind"] == kind]
    if not found:
        reason = f"no fixture of kind '{kind}' in {GOLDEN / folder}"
        skip = pytest.mark.skip(reason=reason)
        return [pytest.param(None, w, marks=skip, id=f"{folder}/none/{w}") for w in what]
    return [pytest.param(f, w, id=f"{folder}/{f.name}/{w}") for f in found for w in what]


def semsam_cfg(original: dict) -> CfgNode:
    """Translate a fixture's configuration (original key names) into ours."""
    swin, encoder, decoder = original["SWIN"], original["ENCODER"], original["DECODER"]
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.PIXEL_MEAN = original["INPUT"]["PIXEL_MEAN"]
    cfg.MODEL.PIXEL_STD = original["INPUT"]["PIXEL_STD"]
    for key in ("EMBED_DIM", "DEPTHS", "NUM_HEADS", "WINDOW_SIZE", "MLP_RATIO", "QKV_BIAS"):
        cfg.MODEL.SWIN[key] = swin[key]
    cfg.MODEL.SWIN.DROP_PATH_RATE = swin["DROP_PATH_RATE"]
    cfg.MODEL.PIXEL_DECODER.CONV_DIM = encoder["CONVS_DIM"]
    cfg.MODEL.PIXEL_DECODER.MASK_DIM = encoder["MASK_DIM"]
    cfg.MODEL.PIXEL_DECODER.NUM_LAYERS = encoder["TRANSFORMER_ENC_LAYERS"]
    cfg.MODEL.PIXEL_DECODER.NUM_LEVELS = encoder["TOTAL_NUM_FEATURE_LEVELS"]
    cfg.MODEL.PIXEL_DECODER.NUM_HEADS = decoder["NHEADS"]
    cfg.MODEL.PIXEL_DECODER.DIM_FEEDFORWARD = decoder["DIM_FEEDFORWARD"]
    cfg.MODEL.DECODER.HIDDEN_DIM = decoder["HIDDEN_DIM"]
    cfg.MODEL.DECODER.NUM_LAYERS = decoder["DEC_LAYERS"]
    # The original's decoder has 8 heads whatever NHEADS says; only its encoder follows the key.
    cfg.MODEL.DECODER.NUM_HEADS = 8
    cfg.MODEL.DECODER.DIM_FEEDFORWARD = decoder["DIM_FEEDFORWARD"]
    cfg.MODEL.DECODER.NUM_TOKENS = decoder["NUM_INTERACTIVE_TOKENS"]
    criterion = cfg.MODEL.CRITERION
    criterion.BCE_WEIGHT = decoder["MASK_WEIGHT"]
    for key in ("DICE_WEIGHT", "BOX_WEIGHT", "GIOU_WEIGHT", "IOU_WEIGHT"):
        criterion[key] = decoder[key]
    criterion.NUM_POINTS = decoder["TRAIN_NUM_POINTS"]
    criterion.OVERSAMPLE_RATIO = decoder["OVERSAMPLE_RATIO"]
    criterion.IMPORTANCE_SAMPLE_RATIO = decoder["IMPORTANCE_SAMPLE_RATIO"]
    cfg.INPUT.NUM_PROMPTS = decoder["MAX_NUM_INSTANCE"]
    return cfg


def load_original(fixture: Fixture, cfg: CfgNode | None = None) -> torch.nn.Module:
    """The fixture's model with its weights, in evaluation mode; ``cfg`` if it needs changes."""
    model = build_model(cfg or semsam_cfg(fixture.meta["config"]))
    # The layout in which detectron2's trainer saved the released files.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "official.pth")
        torch.save({"model": fixture.weights, "iteration": 1}, path)
        load_weights(model, path)
    return model.eval()
