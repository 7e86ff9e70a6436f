import math

import pytest

from semsam.inference.mask_filter import SCORINGS, filter_masks


def record(name="dog", bbox=(0, 0, 10, 10), score=0.9, **changes):
    """A good mask of a photo of 100 x 100 pixels."""
    width, height = bbox[2:]
    given = {
        "bbox": list(bbox),
        "area": width * height,
        "class_name": name,
        "class_score": score,
        "predicted_iou": 0.9,
        "stability_score": 0.95,
        "predicted_cosine_similarity": 0.5,
    }
    return {**given, **changes}


def kept(records, **settings):
    return [records.index({k: v for k, v in each.items() if k != "total_score"})
            for each in filter_masks(records, (100, 100), **settings)]  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"class_name": "background"},
        {"class_score": 0.1},
        {"predicted_iou": 0.8},
        {"stability_score": math.nan},
        {"predicted_cosine_similarity": 0.2},
        {"bbox": [0, 0, 100, 95]},
        {"area": 9500},
    ],
)
def test_a_mask_that_fails_one_condition_is_dropped(changes):
    records = [record(**changes), record(bbox=(50, 50, 10, 10))]
    assert kept(records) == [1]


def test_the_box_s_share_is_that_of_its_width_and_height():
    # The original takes width - x and height - y, and would keep it.
    assert kept([record(bbox=(2, 2, 97, 97), area=100)]) == []


def test_the_best_come_first_and_boxes_under_them_go():
    records = [
        record(score=0.5),
        record(score=0.8, bbox=(0, 0, 10, 9)),
        record(score=0.9, bbox=(40, 40, 9, 9)),
    ]
    assert kept(records) == [2, 1]
    assert kept(records, nms_thresh=0.95) == [2, 1, 0]


def test_categories_may_compete_among_themselves_alone():
    records = [record("dog"), record("cat", score=0.8), record("dog", score=0.7)]
    assert kept(records) == [0]
    assert kept(records, nms="class") == [0, 1]


@pytest.mark.parametrize(
    ("scoring", "total"),
    [
        ("sum", 0.9 + 2 * 0.95 + 0.9 + 0.5),
        ("mul", 0.9 * 0.95 * 0.9 * 0.5),
        ("log_sum", 2 * math.log(0.9) + 2 * math.log(0.95)),
        ("exp_sum", 2 * math.exp(0.9) + 2 * math.exp(0.95)),
    ],
)
def test_scores_are_put_together(scoring, total):
    (found,) = filter_masks([record()], (100, 100), scoring=scoring)
    assert found["total_score"] == pytest.approx(total)
    assert kept([record()], scoring=scoring, total_score_thresh=total + 0.01) == []


def test_a_score_of_zero_has_no_logarithm_and_comes_last():
    records = [record(score=0.0), record(bbox=(50, 50, 10, 10))]
    assert kept(records, scoring="log_sum", score_thresh=0.0) == [1, 0]


def test_records_stay_as_they_are():
    given = record()
    filter_masks([given], (100, 100))
    assert "total_score" not in given


def test_no_mask_is_a_list_of_none():
    assert filter_masks([], (100, 100)) == []


def test_a_mask_without_a_key_is_named():
    given = record()
    del given["class_score"]
    with pytest.raises(ValueError, match="mask 1 has no 'class_score'"):
        filter_masks([record(), given], (100, 100))


def test_an_unknown_way_is_rejected():
    with pytest.raises(ValueError, match=f"one of {', '.join(SCORINGS)}, not 'mean'"):
        filter_masks([], (1, 1), scoring="mean")
    with pytest.raises(ValueError, match="global or class, not 'none'"):
        filter_masks([], (1, 1), nms="none")
