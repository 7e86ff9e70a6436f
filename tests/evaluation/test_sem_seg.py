import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image

from semsam.config import get_cfg
from semsam.data import MetadataCatalog
from semsam.data.records import BadRecordError
from semsam.evaluation import build_evaluator
from semsam.evaluation.sem_seg import BOUNDARY_RATIO, SemSegEvaluator, boundary_mask

NAMES = ["road", "sky", "tree"]


def evaluate(pairs, **kwargs):
    evaluator = SemSegEvaluator(NAMES, **kwargs)
    for truth, found in pairs:
        record = {"file_name": "a.jpg", "sem_seg": np.array(truth)}
        evaluator.process([record], [{"sem_seg": np.array(found)}])
    return evaluator.evaluate()["sem_seg"]


def test_what_is_right_everywhere_has_full_marks():
    labels = [[0, 0, 1], [2, 1, 1]]
    results = evaluate([(labels, labels)])
    assert set(results.values()) == {100.0}


def test_numbers_are_those_computed_by_hand():
    # road: 2 right of 3 real and 2 found; sky: 1 of 1 and 2.
    results = evaluate([([[0, 0, 0, 1]], [[0, 0, 1, 1]])])
    assert results["IoU-road"] == pytest.approx(200 / 3)
    assert results["IoU-sky"] == pytest.approx(50)
    assert "IoU-tree" not in results
    assert results["mIoU"] == pytest.approx((200 / 3 + 50) / 2)
    assert results["mAcc"] == pytest.approx((200 / 3 + 100) / 2)
    assert results["aAcc"] == pytest.approx(75)
    assert results["fwIoU"] == pytest.approx(0.75 * 200 / 3 + 0.25 * 50)


def test_pixels_are_summed_over_images_before_they_are_divided():
    results = evaluate([([[0, 0, 0, 0]], [[0, 0, 0, 0]]), ([[0, 1]], [[1, 1]])])
    assert results["IoU-road"] == pytest.approx(80)


def test_ignored_pixels_count_nowhere():
    results = evaluate([([[0, 0, 255, 255]], [[0, 0, 1, 2]])])
    assert results["mIoU"] == results["aAcc"] == results["boundary mIoU"] == 100
    assert "IoU-sky" not in results


def test_a_truth_that_is_no_class_costs_the_original_s_miou_but_not_that_of_present_classes():
    results = evaluate([([[0, 0, 7]], [[0, 0, 0]])])
    assert results["mIoU"] == pytest.approx(200 / 3)
    assert results["mIoU present"] == 100
    assert results["aAcc"] == 100


def test_a_class_that_does_not_occur_costs_the_original_s_miou_but_not_that_of_present_classes():
    results = evaluate([([[0, 0, 0, 0]], [[0, 0, 0, 1]])])
    assert results["mIoU"] == pytest.approx(75 / 2)
    assert results["mIoU present"] == pytest.approx(75)
    assert results["mAcc"] == pytest.approx(75)


def test_the_truth_may_lie_in_a_file(tmp_path):
    Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).save(tmp_path / "a.png")
    evaluator = SemSegEvaluator(NAMES)
    path = str(tmp_path / "a.png")
    record = {"file_name": "a.jpg", "sem_seg_file_name": path, "reduce_zero_label": True}
    evaluator.process([record], [{"sem_seg": torch.tensor([[2, 0, 1]])}])
    results = evaluator.evaluate()["sem_seg"]
    assert results["aAcc"] == 100
    assert "IoU-tree" not in results


def test_a_boundary_is_each_mask_less_its_erosion():
    labels = np.random.default_rng(0).integers(0, 3, (5, 8)).astype(np.uint16)
    labels = labels.repeat(12, axis=0).repeat(14, axis=1)
    steps = round(BOUNDARY_RATIO * float(np.hypot(*labels.shape)))
    expected = np.zeros(labels.shape, dtype=bool)
    for label in range(3):
        mask = np.pad((labels == label).astype(np.uint8), 1)
        inside = cv2.erode(mask, np.ones((3, 3), dtype=np.uint8), iterations=steps)
        expected |= (mask - inside)[1:-1, 1:-1].astype(bool)
    assert np.array_equal(boundary_mask(labels), expected)


def test_boundary_iou_sees_an_edge_that_the_iou_hardly_sees():
    truth = np.zeros((100, 100), dtype=np.uint8)
    truth[:, 50:] = 1
    found = np.zeros_like(truth)
    found[:, 52:] = 1
    results = evaluate([(truth, found)])
    assert results["mIoU"] > 95
    assert results["boundary mIoU"] < 80


def test_tasks_have_names():
    evaluator = SemSegEvaluator(NAMES, task="branch")
    evaluator.process([{"file_name": "a", "sem_seg": [[0]]}], [{"sem_seg": [[0]]}])
    assert list(evaluator.evaluate()) == ["branch"]


@pytest.mark.parametrize(
    ("found", "message"),
    [([[0, 0]], r"'a\.jpg'.*\(1, 2\).*\(1, 3\)"), ([[0, 3, 0]], "class 3"), ([[0, -1, 0]], "-1")],
)
def test_a_prediction_that_does_not_fit_is_an_error(found, message):
    with pytest.raises(ValueError, match=message):
        evaluate([([[0, 0, 0]], found)])


def test_a_missing_file_of_truth_is_a_bad_record(tmp_path):
    record = {"file_name": "a.jpg", "sem_seg_file_name": str(tmp_path / "a.png")}
    with pytest.raises(BadRecordError, match=r"a\.png"):
        SemSegEvaluator(NAMES).process([record], [{"sem_seg": [[0]]}])


def test_without_images_there_is_no_result():
    with pytest.raises(RuntimeError, match="nothing was evaluated"):
        SemSegEvaluator(NAMES).evaluate()


def test_a_dataset_says_its_classes_in_its_metadata():
    metadata = MetadataCatalog.get("sem_seg_of_a_test").set(evaluator_type="SemSegEvaluator")
    try:
        with pytest.raises(ValueError, match="has no class names"):
            build_evaluator(get_cfg(), "sem_seg_of_a_test")
        metadata.set(stuff_classes=NAMES, ignore_label=0)
        evaluator = build_evaluator(get_cfg(), "sem_seg_of_a_test")
        evaluator.process([{"file_name": "a", "sem_seg": [[0, 1]]}], [{"sem_seg": [[2, 1]]}])
        assert evaluator.evaluate()["sem_seg"]["mIoU"] == 100
    finally:
        MetadataCatalog.remove("sem_seg_of_a_test")


def test_classes_of_the_same_name_are_an_error():
    with pytest.raises(ValueError, match="two classes are called 'sky'"):
        SemSegEvaluator(["sky", "road", "sky"])


PAIRS = [([[0, 0, 1, 2]], [[0, 1, 1, 2]]), ([[0, 255, 7]], [[1, 1, 0]]), ([[2, 2]], [[2, 0]])]


def _evaluate_share(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(evaluate(PAIRS[:1] if rank else PAIRS[1:]), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_ranks_agree_on_the_numbers_of_all_images(tmp_path):
    # Forked, because a fresh process would import torch again for seconds.
    mp.start_processes(_evaluate_share, args=(str(tmp_path),), nprocs=2, start_method="fork")
    assert torch.load(tmp_path / "0.pt") == torch.load(tmp_path / "1.pt") == evaluate(PAIRS)
