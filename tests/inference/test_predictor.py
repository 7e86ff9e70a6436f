import numpy as np
import pytest
import torch

from semsam import SemSamPredictor
from semsam.modeling.decoder.mask_dino import level_order
from semsam.structures import PhotoFormat, Prompts

PHOTO = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)


@pytest.fixture
def predictor(tiny_model):
    predictor = SemSamPredictor(tiny_model, min_size=64)
    predictor.set_image(PHOTO)
    return predictor


def test_a_click_gives_six_masks_in_the_frame_of_the_photo(predictor):
    masks, scores, low_res = predictor.predict(point_coords=[[40, 30]], point_labels=[1])
    assert masks.shape == (6, 50, 80)
    assert masks.dtype == bool
    assert scores.shape == (6,)
    # 64 x 102 is padded to 64 x 128, and the masks have a quarter of that.
    assert low_res.shape == (6, 16, 32)


def test_a_single_click_needs_no_outer_list_and_no_label(predictor):
    one, _, _ = predictor.predict(point_coords=[40, 30])
    same, _, _ = predictor.predict(point_coords=[[40, 30]], point_labels=[1])
    assert np.array_equal(one, same)


def test_logits_are_the_masks_before_the_threshold(predictor):
    logits, _, _ = predictor.predict(point_coords=[40, 30], return_logits=True)
    masks, _, _ = predictor.predict(point_coords=[40, 30])
    assert logits.dtype == np.float32
    clear = np.abs(logits) > 1e-4
    assert np.array_equal(masks[clear], (logits > 0)[clear])


def test_one_mask_is_the_one_with_the_best_score(predictor):
    masks, scores, low_res = predictor.predict(box=[10, 5, 60, 45])
    mask, score, low = predictor.predict(box=[10, 5, 60, 45], multimask_output=False)
    best = scores.argmax()
    assert np.array_equal(mask, masks[best : best + 1])
    assert np.array_equal(score, scores[best : best + 1])
    assert np.array_equal(low, low_res[best : best + 1])


def test_masks_come_in_the_order_of_levels_not_of_tokens(predictor):
    _, scores, low_res = predictor.predict(point_coords=[40, 25])
    point = np.array([[40, 25]]) * predictor.input_size[::-1] / (80, 50)
    extent = [0.005 * side for side in predictor.input_size[::-1]]
    tokens = predictor.decode(Prompts.from_points(point, extents=extent))
    order = [3, 2, 0, 4, 1, 5]
    np.testing.assert_allclose(scores, tokens.scores[0, 0, order], atol=1e-5)
    np.testing.assert_allclose(low_res, tokens.mask_logits[0, 0, order], atol=1e-4)


def test_only_six_masks_have_an_order_of_their_own():
    assert level_order(6) == (3, 2, 0, 4, 1, 5)
    assert level_order(3) == (0, 1, 2)


def test_prompts_answered_together_have_the_answers_of_each_alone(predictor):
    points = [[40, 30], [5, 5], [70, 49]]
    masks, scores, _ = predictor.predict_batch(point_coords=points)
    for i, point in enumerate(points):
        alone, alone_scores, _ = predictor.predict(point_coords=point)
        np.testing.assert_allclose(scores[i], alone_scores, atol=1e-5)
        assert np.mean(masks[i].numpy() != alone) < 1e-3


def test_a_mask_lies_where_the_photo_was_clicked(disc_model):
    predictor = SemSamPredictor(disc_model([8.0], [1.0]), min_size=64)
    predictor.set_image(np.zeros((150, 100, 3), dtype=np.uint8))
    masks, _, _ = predictor.predict(point_coords=[[30, 110]])
    ys, xs = masks[0].nonzero()
    assert np.mean(xs) + 0.5 == pytest.approx(30, abs=1)
    assert np.mean(ys) + 0.5 == pytest.approx(110, abs=1)
    # 8 pixels at a width of 64 are 12.5 at a width of 100.
    assert np.ptp(xs) == pytest.approx(25, abs=2)


@pytest.mark.parametrize(("size", "expected"), [((50, 80), (64, 102)), ((80, 50), (102, 64))])
def test_the_shorter_side_is_resized(tiny_model, size, expected):
    predictor = SemSamPredictor(tiny_model, min_size=64)
    predictor.set_image(np.zeros((*size, 3), dtype=np.uint8))
    assert predictor.input_size == expected


def test_the_model_says_how_it_expects_a_photo(tiny_model, monkeypatch):
    monkeypatch.setattr(tiny_model, "photo_format", PhotoFormat(64, max_size=90))
    predictor = SemSamPredictor(tiny_model)
    predictor.set_image(np.zeros((50, 80, 3), dtype=np.uint8))
    assert predictor.input_size == (56, 90)


def test_predicting_without_an_image_says_what_to_call(tiny_model):
    with pytest.raises(RuntimeError, match="set_image"):
        SemSamPredictor(tiny_model).predict(point_coords=[[1, 1]])


def test_a_reset_image_is_forgotten(predictor):
    predictor.reset_image()
    with pytest.raises(RuntimeError, match="set_image"):
        predictor.predict(point_coords=[[1, 1]])


@pytest.mark.parametrize(
    "image",
    [PHOTO.astype(np.float32), PHOTO[..., 0], PHOTO[None], PHOTO[:0], PHOTO.tolist()],
    ids=["float", "grey", "batch", "empty", "list"],
)
def test_an_image_of_another_kind_is_rejected(tiny_model, image):
    with pytest.raises(ValueError, match="image"):
        SemSamPredictor(tiny_model).set_image(image)


@pytest.mark.parametrize("point", [[81, 10], [10, -1]])
def test_a_click_outside_the_image_is_rejected(predictor, point):
    with pytest.raises(ValueError, match="outside the image of 80 x 50"):
        predictor.predict(point_coords=[point])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_click_nowhere_is_rejected(predictor, value):
    with pytest.raises(ValueError, match="no finite number"):
        predictor.predict(point_coords=[[10, value]])


@pytest.mark.parametrize(
    "prompt",
    [
        {},
        {"point_coords": [[1, 1]], "box": [0, 0, 5, 5]},
        {"point_coords": [[1, 1, 1]]},
        {"box": [0, 0, 5]},
        {"box": [9, 9, 5, 5]},
        {"point_coords": [[1, 1]], "point_labels": [1, 1]},
        {"point_coords": [[1, 1]], "point_labels": [0]},
    ],
)
def test_a_prompt_that_makes_no_sense_is_rejected(predictor, prompt):
    with pytest.raises(ValueError, match=r"point|box"):
        predictor.predict(**prompt)


def test_of_masks_that_are_all_poor_the_last_is_shown():
    masks = np.zeros((2, 20, 20), dtype=bool)
    masks[0, :10], masks[1, 10:] = True, True
    shown, scores, by_area = SemSamPredictor.process_multi_mask(masks, np.array([0.2, 0.1]))
    assert np.array_equal(shown, masks[1:])
    assert scores.tolist() == [0.1]
    assert by_area.tolist() == [0]


def test_a_near_copy_of_a_better_mask_is_not_shown():
    masks = np.zeros((3, 20, 20), dtype=bool)
    masks[0, :10], masks[1, :10], masks[2, 5:] = True, True, True
    masks[1, 0, 0] = False
    shown, scores, by_area = SemSamPredictor.process_multi_mask(masks, np.array([0.8, 0.9, 0.7]))
    assert scores.tolist() == [0.9, 0.7]
    assert by_area.tolist() == [0, 1]
    # The better mask had a notch of one pixel, which is filled.
    assert np.array_equal(shown[0], masks[0])


def test_bfloat16_gives_nearly_the_same_masks_as_float32(tiny_model):
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    answers = []
    for dtype in (torch.float32, torch.bfloat16):
        predictor = SemSamPredictor(tiny_model, min_size=64, dtype=dtype)
        predictor.set_image(image)
        answers.append(predictor.predict_batch([[40, 30], [10, 50]], return_logits=True))
    for exact, reduced in zip(*answers, strict=True):
        assert reduced.dtype == torch.float32
        assert not torch.equal(exact, reduced)
        assert (exact - reduced).abs().max() < 0.03 * exact.abs().max()
