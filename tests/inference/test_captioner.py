import numpy as np
import pytest
import torch

from semsam import RegionCaptioner
from semsam.inference.amg_utils import outer_boxes
from semsam.modeling import build_model
from semsam.modeling.region_heads.caption import TASKS
from tests.tiny import tiny_caption_cfg, tiny_sam_cfg, write_language_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_language_model(tmp_path_factory.mktemp("language_model"))
    torch.manual_seed(0)
    return build_model(tiny_caption_cfg(folder, MAX_LENGTH=6)).eval()


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (48, 80, 3)).astype(np.uint8)


@pytest.fixture
def captioner(model, photo):
    captioner = RegionCaptioner(model, regions_per_batch=2)
    captioner.set_image(photo)
    return captioner


EVERYTHING = {"pred_iou_thresh": None, "stability_score_thresh": None}
BOXES = [[4, 6, 40, 30], [50, 10, 79, 47], [0, 0, 80, 48]]


def test_every_box_has_a_mask_of_the_photo_and_a_sentence(captioner):
    found = captioner.caption(boxes=BOXES)
    assert found.image_size == (48, 80)
    assert found.pred_masks.shape == (3, 48, 80)
    assert found.pred_masks.dtype == torch.bool
    assert len(found.pred_captions) == 3
    assert (found.caption_scores <= 0).all()


def test_regions_are_described_alike_in_batches_and_alone(captioner):
    together = captioner.caption(boxes=BOXES)
    for i, box in enumerate(BOXES):
        alone = captioner.caption(boxes=[box])
        assert alone.pred_captions == together.pred_captions[i : i + 1]
        torch.testing.assert_close(alone.scores, together.scores[i : i + 1])
        assert torch.equal(alone.pred_masks[0], together.pred_masks[i])


def test_the_mask_of_a_box_is_the_one_kept_for_one_meaning_that_of_a_click_the_best(captioner):
    of_box = captioner.predictor.predict(box=BOXES[0], multimask_output=False)
    found = captioner.caption(boxes=BOXES[:1])
    assert found.scores.item() == pytest.approx(of_box[1].item(), abs=1e-5)
    of_click = captioner.predictor.predict(point_coords=[20, 20])
    found = captioner.caption(point_coords=[[20, 20]])
    assert found.scores.item() == pytest.approx(of_click[1].max(), abs=1e-5)


def test_everything_is_encoded_once_and_only_survivors_are_described(model, photo, monkeypatch):
    captioner = RegionCaptioner(model)
    calls = []
    encode = model.encode_image
    monkeypatch.setattr(model, "encode_image", lambda x: calls.append(1) or encode(x))
    records = captioner.caption_everything(photo, points_per_side=4, **EVERYTHING)
    assert len(calls) == 1
    assert records
    assert all(isinstance(r["caption"], str) and r["caption_score"] <= 0 for r in records)
    assert captioner.caption_everything(photo, points_per_side=2, pred_iou_thresh=1e9) == []


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({}, "at least one of them"),
        ({"boxes": np.zeros((0, 4))}, "list of prompts is empty"),
        ({"boxes": []}, "list of prompts is empty"),
        ({"point_coords": []}, "list of prompts is empty"),
        ({"boxes": [[4, 6, 4, 30]]}, "no area"),
        ({"boxes": [[4, 6, 90, 30]]}, "outside the image of 80 x 48"),
        ({"boxes": [[4, 6, float("nan"), 30]]}, "no finite number"),
        ({"boxes": [[4, 6, float("inf"), 30]]}, "no finite number"),
        ({"boxes": [[4, 6, 40, 30]], "task": "poem"}, "tasks are recognition, caption, not poem"),
        ({"boxes": [[4, 6, 40, 30]], "text_prefix": "a red dog on grass"}, "has 5 tokens.*most 5"),
        ({"point_coords": [[10, 60]]}, "outside the image"),
    ],
)
def test_a_region_that_cannot_be_is_refused(captioner, prompt, message):
    with pytest.raises(ValueError, match=message):
        captioner.caption(**prompt)


def test_a_caption_goes_on_from_the_words_that_are_given(captioner):
    free = captioner.caption(boxes=BOXES, num_beams=1)
    for box, sentence in zip(BOXES, free.pred_captions, strict=True):
        first, second, *_ = sentence.split()
        again = captioner.caption(boxes=[box], num_beams=1, text_prefix=f" {first} {second} ")
        assert again.pred_captions == [sentence]
    given = captioner.caption(boxes=BOXES, text_prefix="cat on")
    assert all(sentence.startswith("cat on ") for sentence in given.pred_captions)
    assert given.pred_captions != free.pred_captions


def test_what_is_asked_for_is_a_choice(captioner, photo):
    caption, recognition = (captioner.caption(boxes=BOXES, task=t) for t in TASKS[::-1])
    assert not torch.equal(caption.caption_scores, recognition.caption_scores)
    assert torch.equal(caption.caption_scores, captioner.caption(boxes=BOXES).caption_scores)
    records = captioner.caption_everything(
        photo, text_prefix="cat on", points_per_side=2, **EVERYTHING
    )
    assert all(record["caption"].startswith("cat on") for record in records)


def test_a_model_without_a_caption_head_is_refused():
    with pytest.raises(ValueError, match="no CaptionHead"):
        RegionCaptioner(build_model(tiny_sam_cfg()))


def test_bfloat16_describes_regions_much_as_float32_does(model, captioner, photo):
    reduced = RegionCaptioner(model, dtype=torch.bfloat16)
    reduced.set_image(photo)
    exact, found = captioner.caption(boxes=BOXES), reduced.caption(boxes=BOXES)
    assert found.caption_scores.dtype == torch.float32
    torch.testing.assert_close(found.scores, exact.scores, atol=0.05, rtol=0)
    torch.testing.assert_close(found.caption_scores, exact.caption_scores, atol=0.05, rtol=0)


def test_a_level_says_which_mask_is_given_and_described(tmp_path_factory, photo):
    folder = write_language_model(tmp_path_factory.mktemp("three_captions"))
    torch.manual_seed(0)
    model = build_model(tiny_caption_cfg(folder, TOKENS="masks", MAX_LENGTH=6)).eval()
    captioner = RegionCaptioner(model)
    captioner.set_image(photo)
    clicks = [[20.0, 15.0], [60.0, 30.0]]
    levels = [captioner.caption(clicks, level=level) for level in (1, 2, 3)]
    best = captioner.caption(clicks)
    scores = torch.stack([found.scores for found in levels])
    torch.testing.assert_close(best.scores, scores.amax(0))
    chosen = scores.argmax(0)
    for row, level in enumerate(chosen.tolist()):
        assert torch.equal(best.pred_masks[row], levels[level].pred_masks[row])
        assert best.pred_captions[row] == levels[level].pred_captions[row]
        assert best.caption_scores[row] == levels[level].caption_scores[row]
    # Each mask has a caption of its own.
    assert len({float(found.caption_scores[0]) for found in levels}) == 3
    with pytest.raises(ValueError, match="level is 1 to 3 with this model, got 4"):
        captioner.caption(clicks, level=4)


def test_masks_of_another_model_are_described_by_their_boxes(captioner):
    records = [{"bbox": [4, 6, 35, 23]}, {"bbox": [50, 10, 28, 36]}]
    captioner.caption_masks(records)
    found = captioner.caption(boxes=outer_boxes(records))
    assert [record["caption"] for record in records] == found.pred_captions
    assert [record["caption_score"] for record in records] == found.caption_scores.tolist()
