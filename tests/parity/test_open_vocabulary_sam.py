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
from semsam.modeling.criterion import OpenVocabularyCriterion
from semsam.modeling.criterion.text_losses import NameLosses, contrastive_terms, cosine_error
from semsam.modeling.region_heads.text_class import TextClassHead
from semsam.structures import Instances, PromptOutput, Prompts, PromptTargets, TextPrediction

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


class LossFixture:
    """Predictions for regions, all of which have a mask and a name, and the original's losses."""

    def __init__(self, folder):
        self.meta = json.loads((folder / "losses.json").read_text())
        arrays = np.load(folder / "losses.npz")
        self.arrays = {k: torch.from_numpy(v) for k, v in arrays.items()}
        self.leaves = {
            name: self.arrays[f"in_{name}"].clone().requires_grad_()
            for name in ("pred_masks", "pred_semantic", "pred_iou", "pred_cosine")
        }

    def __getitem__(self, key):
        return self.arrays[key]

    def criterion(self, choice="uncoupled"):
        weights = self.meta["weights"]
        return OpenVocabularyCriterion(
            focal_weight=20 * weights["CombinedLoss"],
            dice_weight=weights["CombinedLoss"],
            iou_weight=weights["MSE_Loss"],
            names=NameLosses(
                contrastive_weight=weights["SymmetricContrastiveLoss"],
                cosine_weight=weights["Cosine_MSE_Loss"],
                shared_names=False,
            ),
            choice=choice,
        )

    def losses(self, choice, tau):
        """Of the regions as the prompts of one image."""
        masks = self["in_target_masks"]
        size = tuple(masks.shape[1:])
        regions = torch.arange(len(masks))
        leaves = self.leaves
        output = PromptOutput(
            mask_logits=leaves["pred_masks"][None],
            scores=leaves["pred_iou"][None],
            boxes=None,
            tokens=torch.zeros(1, len(masks), 0, 0),
            valid=torch.ones(1, len(masks), dtype=torch.bool),
            padded_size=size,
            text=TextPrediction(
                embeddings=F.normalize(leaves["pred_semantic"], dim=-1)[None],
                parts=None,
                cosines=leaves["pred_cosine"][None],
                logit_scale=torch.tensor(tau).exp(),
            ),
        )
        instances = Instances(size, gt_masks=masks, gt_text_embeddings=self["in_semantic_target"])
        targets = PromptTargets(regions, regions[:, None])
        return self.criterion(choice)(output, [instances], [targets])


def loss_cases(*what):
    if not folders("losses.npz"):
        return cases("losses.npz", *what)
    return [
        pytest.param(LossFixture(f), w, id=f"{SYSTEM}/{f.name}/{w}")
        for f in folders("losses.npz")
        for w in what
    ]


@pytest.mark.parametrize(("fixture", "what"), loss_cases("contrastive"))
def test_contrastive_loss_of_every_mask_equals_the_original(fixture, what):
    embeddings = F.normalize(fixture["in_pred_semantic"], dim=-1)
    names = F.normalize(fixture["in_semantic_target"], dim=-1)
    recorded = [k for k in fixture.arrays if k.startswith("contrastive_t")]
    assert recorded
    for key in recorded:
        tau = float(key.split("__")[0].removeprefix("contrastive_t"))
        scale = torch.tensor(tau).exp()
        from_names, from_masks = contrastive_terms(embeddings, names, scale, shared_names=False)
        # The original adds the mean over all names to every mask.
        assert_close((from_names.mean() + from_masks) / 2, fixture[key], key)


@pytest.mark.parametrize(("fixture", "what"), loss_cases("cosine"))
def test_cosine_loss_of_every_mask_equals_the_original(fixture, what):
    error = cosine_error(
        fixture["in_pred_cosine"], fixture["in_pred_semantic"], fixture["in_semantic_target"]
    )
    assert_close(error, fixture["cosine_mse__semantic_loss"], what, atol=1e-6)


@pytest.mark.parametrize(("fixture", "what"), loss_cases("masks"))
def test_mask_losses_of_every_mask_equal_the_original(fixture, what):
    terms = fixture.criterion().mask_terms(
        fixture["in_pred_masks"], fixture["in_pred_iou"], fixture["in_target_masks"]
    )
    both = terms["loss_mask_focal"] + terms["loss_mask_dice"]
    assert_close(both, fixture["combined__mask_loss"], what)
    assert_close(terms["loss_iou"], fixture["mse_iou__mask_loss"], what, atol=1e-6)


@pytest.mark.parametrize(("fixture", "choice"), loss_cases("uncoupled", "coupled"))
def test_total_losses_and_their_gradients_equal_the_original(fixture, choice):
    losses = fixture.losses(choice, tau=1.0)
    semantic = losses["loss_contrastive"] + losses["loss_cosine"]
    total = sum(losses.values())
    ours = {
        "mask_loss": total - semantic,
        "semantic_loss": semantic,
        "total_loss": total,
    }
    expected = fixture.meta["totals"][choice]
    assert {k: v.item() for k, v in ours.items()} == pytest.approx(expected, rel=1e-5)
    gradients = torch.autograd.grad(total, list(fixture.leaves.values()))
    for name, gradient in zip(fixture.leaves, gradients, strict=True):
        assert_close(gradient, fixture[f"{choice}__grad_{name}"], name, atol=1e-5)
