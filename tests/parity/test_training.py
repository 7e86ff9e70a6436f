"""Matching, losses, gradients and optimizer steps against the original's, draw for draw."""

import json

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from semsam.checkpoint.convert import convert_semantic_sam, semantic_sam_key
from semsam.config import get_cfg
from semsam.data.prompt_sampling import CLICK_NOISE, draw_prompts, jitter
from semsam.data.run_length import RunLengthMasks
from semsam.modeling import build_model
from semsam.modeling.build import CRITERION, META_ARCH
from semsam.modeling.criterion.matcher import LevelMatcher
from semsam.solver import build_optimizer, clip_gradients
from semsam.solver.optimizer import parameter_settings
from semsam.structures import (
    Boxes,
    Instances,
    PromptOutput,
    Prompts,
    PromptTargets,
    box_cxcywh_to_xyxy,
    masks_to_boxes,
)

from .golden import GOLDEN, SEMANTIC_SAM, cases, semsam_cfg

LOSS_NAMES = {
    "loss_mask_bce": "loss_mask_bce",
    "loss_mask_dice": "loss_mask_dice",
    "iou_score_loss": "loss_iou",
    "loss_bbox": "loss_box",
    "loss_giou": "loss_giou",
}


class RecordedDraws:
    """Plays back a fixture's torch and Python draws, in the original's order."""

    def __init__(self, tensors, python_calls=()):
        self.tensors = iter(tensors)
        self.integer_calls = iter([c for c in python_calls if c[0] == "randint"])
        self.shuffle_calls = iter([c for c in python_calls if c[0] == "shuffle"])

    def rand(self, *shape, device=None):
        drawn = next(self.tensors)
        assert drawn.shape == shape
        return drawn

    def permutation(self, number):
        # The original first draws a number of prompts, and does not use it.
        next(self.integer_calls)
        drawn = next(self.tensors)
        assert len(drawn) == number
        return drawn.numpy()

    def integers(self, low, high):
        _, first, last, drawn = next(self.integer_calls)
        assert (first, last) == (low, high - 1)
        return drawn

    def shuffle(self, values):
        _, before, after = next(self.shuffle_calls)
        assert list(values) == before
        values[:] = after

    def uniform(self, low, high, size):
        drawn = next(self.tensors)[0].double().numpy()
        assert drawn.shape == size
        return low + (high - low) * drawn


def build_cfg(fixture):
    original = fixture.meta["config"]
    cfg = semsam_cfg(original)
    if original["DECODER"].get("MANY_TO_ONE"):
        cfg.MODEL.CRITERION.NAME = "ManyToOneCriterion"
    return cfg


def build_trainable(cfg, weights, draws):
    model = build_model(cfg)
    model.load_state_dict(convert_semantic_sam(weights))
    model.criterion = CRITERION.get(cfg.MODEL.CRITERION.NAME)(cfg, rand=draws.rand)
    return model.train()


def read_instances(fixture):
    masks = fixture["in.gt_masks"].bool()
    return Instances(masks.shape[-2:], gt_masks=masks, gt_boxes=Boxes(masks_to_boxes(masks)))


def padded_size(fixture):
    multiple = fixture.meta["config"]["DECODER"]["SIZE_DIVISIBILITY"]
    return tuple(-(-side // multiple) * multiple for side in fixture["in.image"].shape[1:])


def read_training_record(fixture):
    """The image with the original's targets and its noisy prompts, which are given relatively."""
    settings = fixture.meta["config"]["DECODER"]
    height, width = padded_size(fixture)
    scale = np.array([width, height] * 2)
    draws = 2 * fixture["rng.001.rand_like"][0].double().numpy() - 1
    noise = settings["DN_NOISE_SCALE"] * CLICK_NOISE
    anchors = jitter(fixture["tgt.points"].double().numpy() * scale, noise, (height, width), draws)
    anchors = torch.from_numpy(anchors).float()
    instances = read_instances(fixture)
    boxes = fixture["tgt.ori_boxes"] * torch.tensor([width, height] * 2)
    instances.gt_boxes = Boxes(box_cxcywh_to_xyxy(boxes))
    levels = [torch.tensor(level) for level in fixture.meta["level_target_inds"]]
    seeds = np.resize(fixture["rng.000.randperm"].numpy(), settings["MAX_NUM_INSTANCE"])
    return {
        "image": fixture["in.image"],
        "prompts": Prompts.from_points(anchors[:, :2], extents=anchors[:, 2:]),
        "instances": instances,
        "targets": PromptTargets(
            torch.from_numpy(seeds), pad_sequence(levels, batch_first=True, padding_value=-1)
        ),
    }


def recorded_output(fixture):
    """The original decoder's outputs as ours, the last layer with the others in ``aux``."""
    layers = []
    for i in range(fixture.meta["config"]["DECODER"]["DEC_LAYERS"]):
        scores = fixture[f"dec.{i}.pred_ious"]
        shape = scores.shape[1:]
        layers.append(
            PromptOutput(
                mask_logits=fixture[f"dec.{i}.pred_masks"].unflatten(1, shape),
                scores=scores,
                boxes=fixture[f"dec.{i}.pred_boxes"].unflatten(1, shape),
                tokens=scores[..., None],
                valid=torch.ones(1, shape[0], dtype=torch.bool),
                padded_size=padded_size(fixture),
            )
        )
    layers[-1].aux.extend(layers[:-1])
    return layers[-1]


def our_loss_names(recorded):
    """``sam.iou_score_loss_2`` -> ``loss_iou_1``: 0 is the last layer, then the others in order."""
    renamed = {}
    for name, value in recorded.items():
        stem, index = name.removeprefix("sam.").rsplit("_", 1)
        suffix = "" if index == "0" else f"_{int(index) - 1}"
        renamed[LOSS_NAMES[stem] + suffix] = value
    return renamed


def renamed_tensors(fixture, prefix):
    """Recorded tensors of parameters with their names in our model, the unused ones left out."""
    for key, value in fixture.tensors.items():
        name = semantic_sam_key(key.removeprefix(prefix)) if key.startswith(prefix) else None
        if name:
            yield name, value


def check_losses(losses, fixture):
    expected = our_loss_names(fixture.meta["losses_weighted"])
    assert {k: v.item() for k, v in losses.items()} == pytest.approx(expected, rel=1e-4)
    assert sum(losses.values()).item() == pytest.approx(fixture.meta["total"], rel=1e-4)


@pytest.mark.parametrize(("fixture", "what"), cases(SEMANTIC_SAM, "training", "matcher"))
def test_matcher_finds_the_original_assignment(fixture, what):
    if fixture.meta["many_to_one"]:
        pytest.skip("many-to-one training has no matcher")
    record, output = read_training_record(fixture), recorded_output(fixture)
    arguments = (output, record["instances"], record["targets"], fixture["rng.002.rand"][0])
    matcher = LevelMatcher(build_cfg(fixture))
    levels, tokens = record["targets"].levels, output.num_masks
    # The original lists the targets of all prompts one after the other.
    prompts, slots = (levels >= 0).nonzero(as_tuple=True)
    column = torch.full_like(levels, -1)
    column[prompts, slots] = torch.arange(len(prompts))

    cost = matcher.cost(*arguments)
    theirs = fixture["matcher.cost"]
    blocks = theirs.unflatten(0, (-1, tokens))[prompts, :, column[prompts, slots]]
    torch.testing.assert_close(cost[prompts, :, slots], blocks, rtol=1e-4, atol=1e-4)

    pairs = matcher(*arguments)
    queries, columns = fixture.meta["matcher_indices"][0]
    assert len(pairs) == len(queries)
    slots = (levels[pairs.prompts] == pairs.targets[:, None]).nonzero()[:, 1]
    total = theirs[pairs.prompts * tokens + pairs.masks, column[pairs.prompts, slots]].sum()
    # The total, not the indices: of two equal assignments either will do.
    torch.testing.assert_close(total, theirs[queries, columns].sum(), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(("fixture", "what"), cases(SEMANTIC_SAM, "training", "criterion"))
def test_criterion_gives_the_original_losses_on_recorded_outputs(fixture, what):
    cfg = build_cfg(fixture)
    draws = RecordedDraws(fixture.numbered("rng")[2:])
    criterion = CRITERION.get(cfg.MODEL.CRITERION.NAME)(cfg, rand=draws.rand)
    record = read_training_record(fixture)
    losses = criterion(recorded_output(fixture), [record["instances"]], [record["targets"]])
    check_losses(losses, fixture)
    assert next(draws.tensors, None) is None


@pytest.mark.parametrize(("fixture", "what"), cases(SEMANTIC_SAM, "training", "gradients"))
def test_training_step_gives_the_original_losses_and_gradients(fixture, what):
    draws = RecordedDraws(fixture.numbered("rng")[2:])
    model = build_trainable(build_cfg(fixture), fixture.weights, draws)
    losses = model([read_training_record(fixture)])
    check_losses(losses, fixture)
    sum(losses.values()).backward()

    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in model.named_parameters()
    }
    expected = fixture.meta["grad_norms"].items()
    norms = {name: norm for key, norm in expected if (name := semantic_sam_key(key))}
    assert set(norms) == set(gradients)
    found = {name: gradients[name].norm().item() for name in norms}
    assert found == pytest.approx(norms, rel=1e-3, abs=1e-5)
    for name, stored in renamed_tensors(fixture, "grad."):
        ours = gradients[name]
        # Of the recorded rows of label_enc the decoder has the first.
        stored = stored[: len(ours)]
        atol = 1e-3 * stored.abs().max().item() + 1e-6
        torch.testing.assert_close(ours, stored, rtol=1e-3, atol=atol)


@pytest.mark.parametrize(("fixture", "what"), cases(SEMANTIC_SAM, "optimizer_steps", "weights"))
def test_optimizer_steps_give_the_original_weights(fixture, what):
    cfg = build_cfg(fixture)
    cfg.SOLVER.BASE_LR = fixture.meta["adamw"]["lr"]
    cfg.SOLVER.CLIP_GRADIENT_NORM = fixture.meta["clip"]
    draws = RecordedDraws(fixture.numbered("rng"), fixture.meta["python_rng_calls"])
    model = build_trainable(cfg, fixture.weights, draws)
    optimizer = build_optimizer(cfg, model)
    instances = read_instances(fixture)
    masks = RunLengthMasks.from_bitmaps(instances.gt_masks.numpy())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    for step in range(fixture.meta["steps"]):
        prompts, targets = draw_prompts(
            masks,
            cfg.INPUT.NUM_PROMPTS,
            cfg.MODEL.DECODER.NUM_TOKENS,
            draws,
            noise=cfg.INPUT.PROMPT_NOISE,
        )
        record = {"image": fixture["in.image"], "prompts": prompts}
        losses = model([{**record, "instances": instances, "targets": targets}])
        total = sum(losses.values())
        assert total.item() == pytest.approx(fixture.meta["totals"][step], rel=1e-4)
        optimizer.zero_grad()
        total.backward()
        norm = clip_gradients(model.parameters(), cfg.SOLVER.CLIP_GRADIENT_NORM)
        assert norm.item() == pytest.approx(fixture.meta["grad_norm_before_clip"][step], rel=1e-3)
        optimizer.step()

    after = {name: p.detach() for name, p in model.named_parameters()}
    moved = {
        name: distance
        for key, (_, _, distance) in fixture.meta["after_sum_norm_deltanorm"].items()
        if (name := semantic_sam_key(key))
    }
    assert set(moved) == set(after)
    found = {name: (after[name] - before[name]).norm().item() for name in moved}
    assert found == pytest.approx(moved, rel=1e-3, abs=1e-7)
    for name, stored in renamed_tensors(fixture, "after."):
        torch.testing.assert_close(after[name], stored[: len(after[name])], rtol=1e-6, atol=1e-6)


def group_lists():
    path = GOLDEN / SEMANTIC_SAM / "optimizer_groups_swint.json"
    marks = [] if path.exists() else [pytest.mark.skip(reason=f"no {path}")]
    return [pytest.param(path, marks=marks, id=f"{SEMANTIC_SAM}/{path.stem}/groups")]


@pytest.mark.parametrize("path", group_lists())
def test_parameter_settings_are_the_original_groups(path):
    recorded = json.loads(path.read_text())
    groups = recorded["groups"].items()
    expected = {name: tuple(group) for key, group in groups if (name := semantic_sam_key(key))}
    # The defaults are the SwinT model and its solver.
    cfg = get_cfg()
    with torch.device("meta"):
        model = META_ARCH.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    found = parameter_settings(cfg, model)
    assert set(found) == set(expected)
    assert {name: pytest.approx(group) for name, group in expected.items()} == found
    assert recorded["clip"]["CLIP_VALUE"] == cfg.SOLVER.CLIP_GRADIENT_NORM
