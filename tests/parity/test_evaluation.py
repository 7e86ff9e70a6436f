"""Evaluation metrics against the original's, on fake and on real predictions."""

import pytest
import torch

from semsam.data.click_choice import choose_click
from semsam.evaluation.interactive import GranularityEvaluator, InteractiveEvaluator, mask_iou
from semsam.modeling.criterion.matcher import LevelMatcher
from semsam.modeling.decoder.mask_dino import level_order
from semsam.modeling.postprocessing import upsample_masks
from semsam.structures import Boxes, Instances, Prompts, PromptTargets, masks_to_boxes

from .golden import SEMANTIC_SAM, cases, load_original, semsam_cfg


def record_of(image, gt_masks, prompts, targets):
    return {
        "image": image,
        "image_id": 1,
        "prompts": prompts,
        "instances": Instances(
            gt_masks.shape[-2:], gt_masks=gt_masks, gt_boxes=Boxes(masks_to_boxes(gt_masks))
        ),
        "targets": targets,
    }


def own_mask(number):
    every = torch.arange(number)
    return PromptTargets(every, every[:, None])


def assert_metrics(ours, theirs):
    """The original reports shares of one, and thresholds of the number of clicks as ``noc@``."""
    assert ours["1-IoU"] == pytest.approx(100 * theirs["miou@iter1"], abs=1e-4)
    thresholds = [key for key in theirs if key.startswith("noc@")]
    assert thresholds
    for key in thresholds:
        assert ours[key.replace("noc", "NoC")] == pytest.approx(theirs[key])


@pytest.mark.parametrize(("fixture", "what"), cases(SEMANTIC_SAM, "evaluator", "iou", "metrics"))
def test_fake_predictions_get_the_original_numbers(fixture, what):
    gt_masks = fixture["tgt.masks"].bool()
    number, tokens = len(gt_masks), fixture.meta["tokens"]
    size = tuple(fixture.meta["image_hw"])
    logits = fixture["in.pred_masks"].view(number, tokens, *fixture["in.pred_masks"].shape[-2:])
    masks = upsample_masks(logits, tuple(fixture.meta["padded_hw"]), size) > 0
    scores = fixture["in.pred_ious"][0]
    if what == "iou":
        iou = mask_iou(masks, gt_masks).float()
        chosen = iou[torch.arange(number), scores.argmax(1)]
        torch.testing.assert_close(chosen, fixture["out.iou_max"])
        torch.testing.assert_close(iou.amax(1), fixture["out.iou_oracle"])
        return
    evaluator = InteractiveEvaluator()
    record = record_of(None, gt_masks, None, own_mask(number))
    evaluator.process([record], [{"instances": Instances(size, pred_masks=masks, scores=scores)}])
    results = evaluator.evaluate()
    for task, theirs in fixture.meta["result"].items():
        assert_metrics(results[task], theirs)


def by_tokens(number):
    """Where each of the original's masks, which are in the order of tokens, stands in ours."""
    return sorted(range(number), key=level_order(number).__getitem__)


@torch.no_grad()
@pytest.mark.parametrize(
    ("fixture", "what"), cases(SEMANTIC_SAM, "interactive_eval", "clicks", "predictions", "metrics")
)
def test_one_click_evaluation_equals_the_original(fixture, what):
    gt_masks = fixture["in.gt_masks"].bool()
    clicks = torch.tensor([choose_click(mask.numpy()) for mask in gt_masks])
    if what == "clicks":
        assert torch.equal(clicks, fixture["ref.click_xy_per_gt"])
        return
    order = fixture["rng.000.randperm"]
    prompts = Prompts.from_points(clicks[order].float())
    targets = PromptTargets(order, order[:, None])
    record = record_of(fixture["in.image"], gt_masks, prompts, targets)
    model = load_original(fixture)
    outputs = model([record])
    if what == "predictions":
        instances = outputs[0]["instances"]
        by_token = by_tokens(instances.scores.shape[1])
        theirs = fixture["out.pred_masks"].view_as(instances.mask_logits)
        ours = instances.mask_logits[:, by_token]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
        ours, theirs = instances.scores[:, by_token], fixture["out.pred_ious"][0]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
        return
    evaluator = InteractiveEvaluator()
    evaluator.process([record], outputs)
    results = evaluator.evaluate()
    for task, theirs in fixture.meta["upstream_evaluator"].items():
        assert_metrics(results[task], theirs)


@torch.no_grad()
@pytest.mark.parametrize(
    ("fixture", "what"), cases(SEMANTIC_SAM, "multi_granularity_eval", "pairs", "metrics")
)
def test_multi_granularity_evaluation_equals_the_original(fixture, what):
    gt_masks = fixture["in.gt_masks"].bool()
    levels = [torch.tensor(inds) for inds in fixture.meta["level_target_inds"]]
    padded = torch.nn.utils.rnn.pad_sequence(levels, batch_first=True, padding_value=-1)
    targets = PromptTargets(padded[:, 0], padded)
    prompts = Prompts.from_points(fixture["in.click_xy"])
    record = record_of(fixture["in.image"], gt_masks, prompts, targets)
    outputs = load_original(fixture)([record])
    if what == "pairs":
        found = outputs[0]["instances"]
        theirs = fixture["out.pred_masks"].view_as(found.mask_logits)
        by_token = by_tokens(found.scores.shape[1])
        ours = found.mask_logits[:, by_token]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
        queries, flat_targets = fixture.meta["matcher_indices"][0]
        masks = found.pred_masks[:, by_token].flatten(0, 1)[queries]
        truth = gt_masks[torch.cat(levels)[flat_targets]]
        iou = mask_iou(masks[:, None], truth)[:, 0].float()
        torch.testing.assert_close(iou, fixture["out.pair_iou"])
        return
    matcher = LevelMatcher(semsam_cfg(fixture.meta["config"]))
    evaluator = GranularityEvaluator(matcher, fixture["rng.000.rand"][0])
    evaluator.process([record], outputs)
    assert_metrics(evaluator.evaluate()["granularity"], fixture.meta["result"])
