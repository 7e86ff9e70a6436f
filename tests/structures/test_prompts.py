import pytest
import torch

from semsam.structures import PromptOutput, Prompts, PromptTargets
from semsam.structures.prompts import CLICK_EXTENT


def test_clicks_are_foreground_and_six_pixels_wide_by_default():
    prompts = Prompts.from_points([[3.0, 4.0], [5.0, 6.0]])
    assert prompts.points.shape == (1, 2, 1, 2)
    assert prompts.labels.tolist() == [[[1], [1]]]
    assert (prompts.extents == CLICK_EXTENT).all()
    assert not prompts.has_box.any()
    assert prompts.valid.all()


def test_several_clicks_make_one_prompt_with_their_labels():
    prompts = Prompts.from_points(torch.zeros(1, 3, 2), labels=torch.tensor([[1, 0, 1]]))
    assert prompts.num_prompts == 1
    assert prompts.labels.tolist() == [[[1, 0, 1]]]


@pytest.mark.parametrize("points", [torch.zeros(2), torch.zeros(2, 3), torch.zeros(1, 1, 1, 2)])
def test_points_of_another_shape_are_refused(points):
    with pytest.raises(ValueError, match="points must be"):
        Prompts.from_points(points)


def test_each_point_needs_its_label():
    with pytest.raises(ValueError, match=r"2 points.*labels"):
        Prompts.from_points(torch.zeros(2, 2), labels=torch.ones(3))


def test_boxes_have_no_points():
    prompts = Prompts.from_boxes([[1.0, 2, 3, 4]])
    assert prompts.has_box.all()
    assert (prompts.labels == -1).all()
    assert prompts.boxes.tolist() == [[[1, 2, 3, 4]]]


@pytest.mark.parametrize("boxes", [[[3.0, 2, 1, 4]], [[1.0, 4, 3, 2]]])
def test_a_box_with_its_corners_swapped_is_refused(boxes):
    with pytest.raises(ValueError, match="x1 >= x0"):
        Prompts.from_boxes(boxes)


def test_clicks_and_boxes_mix_in_one_image():
    clicks = Prompts.from_points(torch.ones(2, 3, 2))
    mixed = Prompts.cat([clicks, Prompts.from_boxes([[1.0, 2, 3, 4]])])
    assert mixed.has_box.tolist() == [[False, False, True]]
    assert mixed.points.shape == (1, 3, 3, 2)
    assert mixed.labels[0, 2].tolist() == [-1, -1, -1]
    assert mixed.valid.all()


def test_images_with_different_numbers_of_prompts_are_stacked_with_a_validity_mask():
    one, two = Prompts.from_points([[3.0, 4.0]]), Prompts.from_boxes(torch.zeros(2, 4))
    batch = Prompts.collate([one, two, Prompts.from_points(torch.zeros(0, 2))])
    assert len(batch) == 3
    assert batch.valid.tolist() == [[True, False], [True, True], [False, False]]
    assert batch[:1].points[0, 0].tolist() == [[3, 4]]
    assert (batch.labels[0, 1] == -1).all()


def test_texts_go_alone_or_with_a_place_and_stay_with_their_prompt():
    texts = torch.randn(2, 5)
    prompts = Prompts.cat(
        [
            Prompts.from_points([[3.0, 4.0]]),
            Prompts.from_texts(texts),
            Prompts.from_boxes([[1.0, 2, 3, 4]]).with_texts(texts[:1]),
        ]
    )
    assert prompts.has_text.tolist() == [[False, True, True, True]]
    assert prompts.has_box.tolist() == [[False, False, False, True]]
    assert torch.equal(prompts.texts[0, 1:3], texts)
    assert not prompts.texts[0, 0].any()
    batch = Prompts.collate([prompts.select(slice(1)), prompts])
    assert batch.texts.shape == (2, 4, 5)
    assert torch.equal(batch[1:].texts, prompts.texts)
    assert batch.has_text[0].tolist() == [False] * 4


def test_texts_of_two_encoders_cannot_be_prompts_of_one_batch():
    with pytest.raises(ValueError, match=r"\[3, 5\] channels"):
        Prompts.collate([Prompts.from_texts(torch.ones(1, n)) for n in (3, 5)])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (torch.ones(3, 5), "2 prompts, but 3 texts"),
        (torch.ones(2), r"must be \(N, D\)"),
        (torch.full((2, 5), float("nan")), "finite"),
    ],
)
def test_texts_that_do_not_fit_are_refused(texts, message):
    with pytest.raises(ValueError, match=message):
        Prompts.from_points([[1.0, 1.0], [2.0, 2.0]]).with_texts(texts)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        Prompts.collate([])


def test_targets_and_prompts_move_together():
    prompts = Prompts.from_points([[3.0, 4.0]]).to("meta")
    targets = PromptTargets(torch.zeros(1).long(), torch.zeros(1, 2).long()).to("meta")
    assert prompts.valid.device == targets.levels.device == torch.device("meta")


def test_masks_are_selected_in_the_given_order():
    output = PromptOutput(
        mask_logits=torch.arange(3.0).view(1, 1, 3, 1, 1),
        scores=torch.arange(3.0).view(1, 1, 3),
        boxes=None,
        tokens=torch.arange(3.0).view(1, 1, 3, 1),
        valid=torch.ones(1, 1, dtype=torch.bool),
        padded_size=(32, 32),
    )
    picked = output.select_masks([2, 0])
    assert picked.mask_logits.flatten().tolist() == [2, 0]
    assert picked.scores.flatten().tolist() == [2, 0]
    assert picked.tokens.flatten().tolist() == [2, 0]
    with pytest.raises(ValueError, match="decoder of 3 masks"):
        output.select_masks([3])


def test_the_best_mask_is_one_of_those_that_answer():
    output = PromptOutput(
        mask_logits=torch.zeros(1, 2, 3, 1, 1),
        scores=torch.tensor([[[0.9, 0.2, 0.5], [0.9, 0.2, 0.5]]]),
        boxes=None,
        tokens=torch.zeros(1, 2, 3, 1),
        valid=torch.ones(1, 2, dtype=torch.bool),
        padded_size=(32, 32),
        answering=torch.tensor([[[True, True, True], [False, True, True]]]),
    )
    assert output.best_masks().tolist() == [[0, 2]]
