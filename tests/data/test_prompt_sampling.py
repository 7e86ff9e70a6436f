import numpy as np
import pytest
import torch

from semsam.data.prompt_sampling import draw_prompts, draw_seeds, jitter
from semsam.data.run_length import RunLengthMasks
from tests.data.sa1b_files import nested_masks


def draw(masks, seed=0, num_prompts=30, max_levels=6, **options):
    rng = np.random.default_rng(seed)
    return draw_prompts(RunLengthMasks.from_bitmaps(masks), num_prompts, max_levels, rng, **options)


def test_every_mask_is_a_seed_before_one_is_again():
    seeds = draw_seeds(4, 10, np.random.default_rng(0))
    assert sorted(seeds[:4]) == [0, 1, 2, 3]
    assert np.array_equal(seeds[:6], seeds[4:])


def test_prompts_need_a_mask():
    with pytest.raises(ValueError, match="at least one mask"):
        draw(np.zeros((0, 4, 4), dtype=bool))


def test_a_click_lies_in_its_seed_and_all_masks_around_it_answer():
    masks = nested_masks()
    prompts, targets = draw(masks)
    for (x, y), seed, levels in zip(
        prompts.points[0, :, 0].long(), targets.seeds, targets.levels, strict=True
    ):
        assert masks[seed, y, x]
        assert levels[levels >= 0].tolist() == np.flatnonzero(masks[:, y, x]).tolist()


def test_clicks_are_uniform_over_the_mask():
    mask = np.zeros((1, 4, 6), dtype=bool)
    mask[0, 1:3, 2:5] = True
    prompts, _ = draw(mask, num_prompts=6000)
    points = prompts.points[0, :, 0].long()
    counts = torch.bincount(points[:, 1] * 6 + points[:, 0], minlength=24).reshape(4, 6)
    assert torch.equal(counts > 0, torch.from_numpy(mask[0]))
    assert counts[counts > 0].min() > 850


def test_too_many_answers_are_cut_to_a_random_choice():
    masks = np.ones((5, 3, 3), dtype=bool)
    _, targets = draw(masks, num_prompts=200, max_levels=2)
    assert targets.levels.shape == (200, 2)
    assert set(targets.levels.flatten().tolist()) == {0, 1, 2, 3, 4}
    assert (targets.levels[:, 0] != targets.levels[:, 1]).all()


def test_the_last_prompts_are_boxes_of_one_answer():
    masks = nested_masks()
    prompts, targets = draw(masks, num_prompts=10, box_ratio=0.3)
    assert prompts.has_box[0].tolist() == [False] * 7 + [True] * 3
    boxes = torch.from_numpy(RunLengthMasks.from_bitmaps(masks).boxes)
    torch.testing.assert_close(prompts.boxes[0, 7:], boxes[targets.seeds[7:]])
    assert targets.levels[7:, 0].tolist() == targets.seeds[7:].tolist()
    assert (targets.levels[7:, 1:] == -1).all()


def test_the_same_generator_state_draws_the_same_prompts():
    first, second = (draw(nested_masks(), seed=3, noise=0.4) for _ in range(2))
    assert torch.equal(first[0].points, second[0].points)
    assert torch.equal(first[1].levels, second[1].levels)
    assert not torch.equal(draw(nested_masks(), seed=4, noise=0.4)[0].points, first[0].points)


def test_noise_moves_the_centre_by_half_a_size_and_stays_in_the_frame():
    boxes = np.array([[10.0, 20.0, 8.0, 4.0], [99.0, 1.0, 8.0, 4.0]])
    moved = jitter(boxes, 0.5, (50, 100), np.array([[1.0, -1, 1, -1], [1, -1, 1, -1]]))
    assert moved.tolist() == [[12.0, 19.0, 12.0, 2.0], [100.0, 0.0, 12.0, 2.0]]


def test_noise_on_a_click_is_a_hundredth_of_that_on_a_box():
    prompts, _ = draw(nested_masks(), num_prompts=400, noise=0.4)
    assert 0.02 < (prompts.extents - 6).abs().max() <= 6 * 0.4 * 0.01 + 1e-5
