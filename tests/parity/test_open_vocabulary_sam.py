"""Open-vocabulary SAM against the original: masks, embeddings, cosines, losses and gradients."""

import json
import tempfile
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from semsam.checkpoint import load_weights
from semsam.config import get_cfg
from semsam.modeling import build_model
from semsam.modeling.region_heads.text_class import TextClassHead
from semsam.structures import Prompts

from .golden import GOLDEN

SYSTEM = "open_vocabulary_sam"
#: What a case's name ends with -> how the original's head is switched.
VARIANTS = {
    "multi": {},
    "single": {},
    "unnorm": {},
    "masktokens": {"semantic_tokens": False},
    "nohyper": {"hypernetworks": False},
}


class OvsamFixture:
    """A folder with weights, inputs, and what the original makes of them."""

    def __init__(self, folder):
        self.folder = folder
        self.meta = json.loads((folder / "config.json").read_text())

    @cached_property
    def forward(self):
        return {k: torch.from_numpy(v) for k, v in np.load(self.folder / "forward.npz").items()}

    @cached_property
    def weights(self):
        return load_file(self.folder / "model.safetensors")

    @cached_property
    def model(self):
        model = build_model(ovsam_cfg(self.meta, self.weights))
        with tempfile.TemporaryDirectory() as folder:
            # The layout of the original's checkpoints.
            path = Path(folder, "model_0.pt")
            torch.save({"epoch": 0, "model_state_dict": self.weights, "loss": 0.0}, path)
            load_weights(model, path)
        return model.eval()

    @cached_property
    def features(self):
        size = (self.meta["image_size"],) * 2
        features = self.model.backbone(self.forward["in_image"])
        return self.model.decoder.prepare({**features, "padded_size": size})

    def prompts(self, case):
        shown = case.split("_")[0]
        number = len(self.forward["in_boxes"])
        prompts = Prompts.from_texts(torch.ones(number, 1))
        if "point" in shown:
            prompts = Prompts.from_points(self.forward["in_points"], self.forward["in_labels"])
        elif "box" in shown:
            prompts = Prompts.from_boxes(self.forward["in_boxes"])
        if "point" in shown and "box" in shown:
            prompts = prompts.with_boxes(self.forward["in_boxes"])
        if "text" in shown:
            prompts = prompts.with_texts(self.forward["in_text"])
        if "mask" in shown:
            prompts = prompts.with_masks(self.forward["in_mask_prompt"][:, 0][None])
        return prompts


def ovsam_cfg(original, weights):
    """Translate the original's settings, and what only the weights' shapes tell, into ours."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.DECODER.NAME = "SamViT", "SamDecoder"
    cfg.MODEL.PIXEL_DECODER.NAME = cfg.MODEL.CRITERION.NAME = ""
    cfg.MODEL.REGION_HEADS.NAMES = ["TextClassHead"]
    sam = cfg.MODEL.SAM
    sam.IMAGE_SIZE, sam.PATCH_SIZE = original["image_size"], original["patch"]
    sam.EMBED_DIM, sam.DEPTH = original["embed_dim"], original["depth"]
    sam.NUM_HEADS, sam.WINDOW_SIZE = original["heads"], original["window_size"]
    sam.GLOBAL_ATTN_INDEXES = original["global_attn_indexes"]
    sam.IOU_HEAD_DIM = original["iou_hidden"]
    sam.MASK_IN_CHANNELS = len(weights["sam.prompt_encoder.mask_downscaling.3.weight"])
    decoder, blocks = cfg.MODEL.DECODER, "sam.mask_decoder.transformer.layers."
    decoder.HIDDEN_DIM = original["prompt_dim"]
    decoder.NUM_LAYERS = 1 + max(
        int(key.removeprefix(blocks).split(".")[0]) for key in weights if key.startswith(blocks)
    )
    decoder.NUM_HEADS = original.get("decoder_heads", original["heads"])
    decoder.DIM_FEEDFORWARD = len(weights[f"{blocks}0.mlp.lin1.weight"])
    decoder.NUM_TOKENS = len(weights["sam.mask_decoder.mask_tokens.weight"]) - 1
    text = cfg.MODEL.TEXT_CLASS
    text.EMBED_DIM, text.TEXT_PROMPTS = original["clip_dim"], True
    return cfg


def folders(file):
    """The folder itself, or the folders in it, with a file of the original."""
    return sorted(path.parent for path in (GOLDEN / SYSTEM).rglob(file))


def cases(file, *what):
    if not folders(file):
        skip = pytest.mark.skip(reason=f"no {file} in {GOLDEN / SYSTEM}")
        return [pytest.param(None, w, marks=skip, id=f"{SYSTEM}/none/{w}") for w in what]
    return [
        pytest.param(OvsamFixture(f), w, id=f"{SYSTEM}/{f.name}/{w}")
        for f in folders(file)
        for w in what
    ]


def forward_cases():
    suffix = "__low_res_masks"
    found = [
        pytest.param(fixture, key.removesuffix(suffix), id=f"{case_id}/{key.removesuffix(suffix)}")
        for fixture, case_id in (
            (OvsamFixture(f), f"{SYSTEM}/{f.name}") for f in folders("forward.npz")
        )
        for key in fixture.forward
        if key.endswith(suffix)
    ]
    return found or cases("forward.npz", "forward")


def head_of(fixture, variant):
    """The model's head, or one with its weights that is switched otherwise."""
    head = fixture.model.region_heads["TextClassHead"]
    if not VARIANTS[variant]:
        return head
    switched = TextClassHead(
        token_dim=fixture.meta["prompt_dim"],
        num_masks=head.num_masks,
        first_token=head.cosine_token,
        embed_dim=fixture.meta["clip_dim"],
        **VARIANTS[variant],
    )
    own = switched.state_dict()
    switched.load_state_dict({k: v for k, v in head.state_dict().items() if k in own})
    return switched


def assert_close(ours, theirs, name, atol=1e-4):
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=atol, err_msg=name)


@pytest.mark.parametrize(("fixture", "what"), cases("forward.npz", "image_embedding"))
@torch.no_grad()
def test_image_embedding_equals_the_original(fixture, what):
    assert_close(fixture.features["image_embedding"][0], fixture.forward[what], what)


@pytest.mark.parametrize(("fixture", "case"), forward_cases())
@torch.no_grad()
def test_prompts_are_answered_as_by_the_original(fixture, case):
    variant = case.split("_")[-1]
    if variant not in VARIANTS:
        pytest.skip(f"'{case}' is of the unknown variant '{variant}'")
    head = head_of(fixture, variant)
    output = fixture.model.decode(fixture.features, fixture.prompts(case))
    output = head.complete(output)
    order = [output.single] if variant == "single" else list(output.levels)
    embeddings = head.project(output)[:, :, order]
    chosen = output.select_masks(order)
    assert_close(chosen.text.embeddings, F.normalize(embeddings, dim=-1), case)
    if variant != "unnorm":
        embeddings = chosen.text.embeddings
    ours = {
        "low_res_masks": chosen.mask_logits,
        "iou_predictions": chosen.scores,
        "semantic_features": embeddings,
        "cosine_predictions": chosen.text.cosines,
    }
    for name, value in ours.items():
        assert_close(value[0], fixture.forward[f"{case}__{name}"], name)


@pytest.mark.parametrize(("fixture", "what"), cases("forward.npz", "temperature"))
def test_scale_equals_the_original(fixture, what):
    head = fixture.model.region_heads["TextClassHead"]
    assert head.scale().item() == pytest.approx(fixture.forward["temperature_exp"].item(), rel=1e-5)
