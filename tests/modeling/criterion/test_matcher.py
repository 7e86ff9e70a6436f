from dataclasses import replace

import pytest
import torch

from semsam.modeling.criterion.matcher import LevelMatcher
from semsam.structures import Instances, PromptTargets

from .scenes import FRAME, empty_scene, nested_scene, perfect_output, random_output

POINTS = torch.rand(200, 2, generator=torch.Generator().manual_seed(0))


def triplets(pairs):
    return list(
        zip(*(x.tolist() for x in (pairs.prompts, pairs.masks, pairs.targets)), strict=True)
    )


def test_each_mask_finds_the_level_that_it_draws():
    instances, targets = nested_scene()
    output = perfect_output(instances, [[0, 3, 1, 2], [2, 1, 3, 0]])
    pairs = LevelMatcher()(output, instances, targets, POINTS)
    assert triplets(pairs) == [(0, 0, 0), (0, 2, 1), (0, 3, 2), (1, 2, 3)]


def test_a_mask_is_not_matched_to_a_target_of_another_prompt():
    instances, targets = nested_scene()
    # Prompt 1 draws the masks of prompt 0 only; it still answers for its own target.
    output = perfect_output(instances, [[3, 3, 3, 3], [0, 1, 2, 0]])
    pairs = LevelMatcher()(output, instances, targets, POINTS)
    assert sorted(pairs.targets[pairs.prompts == 0].tolist()) == [0, 1, 2]
    assert pairs.targets[pairs.prompts == 1].tolist() == [3]


@pytest.mark.parametrize("weights", [(5, 0, 0, 0), (0, 5, 0, 0), (0, 0, 5, 0), (0, 0, 0, 2)])
def test_every_cost_alone_finds_the_levels(weights):
    instances, targets = nested_scene()
    output = perfect_output(instances, [[2, 1, 0, 3], [3, 0, 0, 0]])
    pairs = LevelMatcher(*weights)(output, instances, targets, POINTS)
    assert triplets(pairs) == [(0, 0, 2), (0, 1, 1), (0, 2, 0), (1, 0, 3)]


def test_decoders_without_boxes_are_matched_by_masks():
    instances, targets = nested_scene()
    output = replace(perfect_output(instances, [[1, 2, 0, 3], [0, 3, 0, 0]]), boxes=None)
    pairs = LevelMatcher()(output, instances, targets, POINTS)
    assert triplets(pairs) == [(0, 0, 1), (0, 1, 2), (0, 2, 0), (1, 1, 3)]


def test_more_levels_than_masks_leave_the_worst_fits_out():
    instances, targets = nested_scene()
    output = perfect_output(instances, [[1], [3]])
    pairs = LevelMatcher()(output, instances, targets, POINTS)
    assert triplets(pairs) == [(0, 0, 1), (1, 0, 3)]


def test_padded_prompts_and_prompts_without_targets_are_not_matched():
    instances, targets = nested_scene()
    output = random_output(prompts=3)
    output = replace(output, valid=torch.tensor([[False, True, True]]))
    assert set(LevelMatcher()(output, instances, targets, POINTS).prompts.tolist()) == {1}
    unanswered = PromptTargets(targets.seeds, torch.full_like(targets.levels, -1))
    assert len(LevelMatcher()(output, instances, unanswered, POINTS)) == 0


def test_an_image_without_instances_has_no_pairs():
    assert len(LevelMatcher()(random_output(), *empty_scene(), POINTS)) == 0


def test_predictions_that_are_not_finite_are_still_matched():
    instances, targets = nested_scene()
    output = random_output()
    broken = output.mask_logits.detach().clone()
    broken[0, 0, 1], broken[0, 0, 2] = torch.nan, torch.inf
    pairs = LevelMatcher()(replace(output, mask_logits=broken), instances, targets, POINTS)
    assert pairs.prompts.tolist() == [0, 0, 0, 1]


def test_half_precision_logits_give_the_costs_of_their_values():
    instances, targets = nested_scene()
    output = random_output()
    rounded = output.mask_logits.detach().bfloat16()
    expected = replace(output, mask_logits=rounded.float())
    torch.testing.assert_close(
        LevelMatcher().cost(replace(output, mask_logits=rounded), instances, targets, POINTS),
        LevelMatcher().cost(expected, instances, targets, POINTS),
        rtol=0,
        atol=0,
    )


def test_autocast_does_not_change_the_cost():
    instances, targets = nested_scene()
    arguments = (random_output(), instances, targets, POINTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cost = LevelMatcher().cost(*arguments)
    torch.testing.assert_close(cost, LevelMatcher().cost(*arguments), rtol=0, atol=0)


def test_an_image_smaller_than_the_frame_is_matched_in_the_frame():
    instances, targets = nested_scene((26, 22))
    output = perfect_output(instances, [[2, 1, 0, 3], [0, 0, 0, 3]], FRAME)
    pairs = LevelMatcher()(output, instances, targets, POINTS)
    assert triplets(pairs) == [(0, 0, 2), (0, 1, 1), (0, 2, 0), (1, 3, 3)]


def without_masks(instances):
    return Instances(instances.image_size, gt_boxes=instances.gt_boxes)


def test_objects_without_masks_are_matched_by_boxes():
    instances, targets = nested_scene()
    output = perfect_output(instances, [[2, 1, 0, 3], [3, 0, 0, 0]])
    pairs = LevelMatcher()(output, without_masks(instances), targets, POINTS)
    assert triplets(pairs) == [(0, 0, 2), (0, 1, 1), (0, 2, 0), (1, 0, 3)]
    with pytest.raises(ValueError, match="no masks, and the decoder predicts no boxes"):
        LevelMatcher()(replace(output, boxes=None), without_masks(instances), targets, POINTS)
