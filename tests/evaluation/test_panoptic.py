import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semsam.config import get_cfg
from semsam.data import DatasetCatalog, MetadataCatalog, build_test_loader
from semsam.data.records import (
    BadRecordError,
    decode_annotations,
    decode_labels,
    decode_segments,
)
from semsam.evaluation import build_evaluator, inference_on_dataset
from semsam.evaluation.panoptic import PanopticEvaluator, match_segments, panoptic_quality
from semsam.evaluation.sem_seg import SemSegEvaluator

from .coco_files import COCO_ROOT, instances

NAMES = ["person", "dog", "grass"]
THINGS = [0, 1]


def info(*rows):
    keys = ("id", "category_id", "iscrowd")
    return [dict(zip(keys, row, strict=False)) for row in rows]


def match(truth, truth_info, found, found_info):
    return match_segments(
        np.array(truth), info(*truth_info), torch.tensor(found), info(*found_info), len(NAMES)
    )


def test_numbers_are_those_computed_by_hand():
    # A person of four pixels found with three of them and one of the grass beside it; the dog is
    # found as a person; the rest of the grass is all right.
    truth = [[1, 1, 1, 1, 3, 3, 3, 3, 2, 2]]
    found = [[8, 5, 5, 5, 5, 8, 8, 8, 6, 6]]
    counts = match(truth, [(1, 0), (2, 1), (3, 2)], found, [(5, 0), (6, 0), (8, 2)])
    assert counts[0] == pytest.approx([1, 3 / 5, 1, 0])
    assert counts[1] == pytest.approx([0, 0, 0, 1])
    assert counts[2] == pytest.approx([1, 3 / 5, 0, 0])
    summary, classes = panoptic_quality(counts, NAMES, np.array([True, True, False]))
    assert classes["PQ"] == pytest.approx({"person": 40, "dog": 0, "grass": 60})
    assert classes["SQ"] == pytest.approx({"person": 60, "dog": 0, "grass": 60})
    assert classes["RQ"] == pytest.approx({"person": 200 / 3, "dog": 0, "grass": 100})
    assert summary["PQ"] == pytest.approx(100 / 3)
    assert summary["PQ_th"] == pytest.approx(20)
    assert summary["RQ_st"] == pytest.approx(100)


def test_half_is_not_enough():
    counts = match([[1, 1, 3, 3]], [(1, 0), (3, 2)], [[1, 3, 3, 3]], [(1, 0), (3, 2)])
    assert counts[0].tolist() == [0, 0, 1, 1]
    assert counts[2] == pytest.approx([1, 2 / 3, 0, 0])


def test_void_is_taken_out_of_what_was_found():
    counts = match([[1, 1, 0, 0, 0]], [(1, 0)], [[4, 4, 4, 4, 4]], [(4, 0)])
    assert counts[0].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(("in_void", "wrong"), [(2, 1), (3, 0)])
def test_a_wrong_segment_that_is_mostly_void_counts_nowhere(in_void, wrong):
    truth = [[0] * in_void + [3] * (4 - in_void)]
    counts = match(truth, [(3, 2)], [[7, 7, 7, 7]], [(7, 0)])
    assert counts[0].tolist() == [0, 0, wrong, 0]
    assert counts[2].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(("number", "wrong"), [(0, 0), (1, 1)])
def test_a_crowd_hides_wrong_segments_of_its_class_alone_and_is_never_missed(number, wrong):
    counts = match([[9, 9, 9, 3]], [(9, 0, 1), (3, 2)], [[5, 5, 5, 5]], [(5, number)])
    assert counts[number].tolist() == [0, 0, wrong, 0]
    assert counts.sum() == wrong + 1


def test_nothing_found_is_all_missed():
    counts = match([[1, 3]], [(1, 0), (3, 2)], [[0, 0]], [])
    assert counts[:, 3].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("found", "found_info", "message"),
    [
        ([[1]], [(1, 0)], r"\(1, 1\), the truth \(1, 2\)"),
        ([[1, 2]], [(1, 0)], r"segments \[2\] of the prediction"),
        ([[1, 1]], [(1, 0), (4, 0)], r"segments \[4\] of the prediction"),
        ([[1, 1]], [(1, 3)], "class 3 in the prediction"),
        ([[1, 1]], [(1, 0), (1, 1)], "twice"),
    ],
)
def test_a_prediction_that_does_not_fit_is_an_error(found, found_info, message):
    with pytest.raises(ValueError, match=message):
        match([[1, 1]], [(1, 0)], found, found_info)


@pytest.fixture
def record(tmp_path):
    """A person of segment 70000 left, grass of segment 3 right, void below."""
    ids = np.array([[70000, 70000, 3, 3], [70000, 70000, 3, 3], [0, 0, 0, 0]])
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "1.png")
    return {
        "file_name": "1.jpg",
        "image_id": 1,
        "pan_seg_file_name": str(tmp_path / "1.png"),
        "segments_info": info((70000, 0, 0), (3, 2, 0)),
    }


def test_segments_are_read_from_the_picture_of_the_truth(record):
    evaluator = PanopticEvaluator(NAMES, THINGS)
    segments = torch.tensor([[1, 1, 2, 2], [1, 1, 1, 2], [1, 1, 2, 2]])
    evaluator.process([record], [{"panoptic_seg": (segments, info((1, 0), (2, 2)))}])
    results = evaluator.evaluate()["panoptic_seg"]
    assert results["PQ-person"] == pytest.approx(80)
    assert results["PQ-grass"] == pytest.approx(75)
    assert results["PQ"] == pytest.approx(77.5)
    assert results["PQ_th"] == pytest.approx(80)
    assert "PQ-dog" not in results


def test_errors_name_the_photo(record):
    evaluator = PanopticEvaluator(NAMES, THINGS)
    with pytest.raises(ValueError, match=r"'1\.jpg'"):
        evaluator.process([record], [{"panoptic_seg": (torch.zeros(2, 2), [])}])
    lost = {**record, "pan_seg_file_name": "nowhere.png"}
    with pytest.raises(BadRecordError, match=r"nowhere\.png"):
        evaluator.process([lost], [{"panoptic_seg": (torch.zeros(3, 4), [])}])
    with pytest.raises(RuntimeError, match="nothing was evaluated"):
        evaluator.evaluate()


def test_panoptic_segments_are_a_truth_for_classes_of_pixels_too(record):
    crowd = {**record, "segments_info": info((70000, 0, 1), (3, 2, 0))}
    assert decode_labels(record)[0].tolist() == [0, 0, 2, 2]
    assert decode_labels(crowd)[0].tolist() == [255, 255, 2, 2]
    evaluator = SemSegEvaluator(NAMES)
    evaluator.process([record], [{"sem_seg": np.array([[0, 0, 2, 2], [0, 0, 2, 2], [1, 1, 1, 1]])}])
    assert evaluator.evaluate()["sem_seg"]["aAcc"] == 100


@pytest.fixture(scope="module")
def photos():
    """The real validation photos: evaluator, records and their maps of segments."""
    if not COCO_ROOT.is_dir():
        pytest.skip(f"no COCO in {COCO_ROOT}; see SEMSAM_DATA")
    name = f"coco_panoptic_seg://{COCO_ROOT}?split=val2017"
    records = DatasetCatalog.get(name)
    return PanopticEvaluator(get_cfg(), name), [(r, decode_segments(r)) for r in records]


def test_the_truth_of_real_photos_has_full_marks(photos):
    evaluator, pairs = photos
    evaluator.reset()
    for record, ids in pairs:
        evaluator.process([record], [{"panoptic_seg": (ids, record["segments_info"])}])
    results = evaluator.evaluate()["panoptic_seg"]
    assert set(results.values()) == {100.0}
    occurring = {s["category_id"] for r, _ in pairs for s in r["segments_info"] if not s["iscrowd"]}
    assert sum(key.startswith("PQ-") for key in results) == len(occurring)


def test_of_segments_of_real_photos_that_are_left_out_each_costs_half(photos):
    evaluator, pairs = photos
    evaluator.reset()
    # By class: segments, and those that are kept.
    total, kept, number = np.zeros(133), np.zeros(133), 0
    for record, ids in pairs:
        found, left = ids.copy(), []
        for segment in record["segments_info"]:
            number += 1
            total[segment["category_id"]] += not segment["iscrowd"]
            if number % 2:
                found[ids == segment["id"]] = 0
            else:
                kept[segment["category_id"]] += not segment["iscrowd"]
                left.append(segment)
        evaluator.process([record], [{"panoptic_seg": (found, left)}])
    results = evaluator.evaluate()["panoptic_seg"]
    quality = 100 * kept[total > 0] / (total + kept)[total > 0] * 2
    assert number == 1078
    assert results["PQ"] == pytest.approx(quality.mean())
    things = (np.arange(133) < 80)[total > 0]
    assert results["PQ_th"] == pytest.approx(quality[things].mean())
    assert results["RQ_st"] == pytest.approx(quality[~things].mean())


def test_numbers_on_real_photos_equal_those_of_another_implementation(photos, tmp_path):
    panoptic = pytest.importorskip("hotcoco.panoptic", reason="hotcoco is not installed")
    truth = COCO_ROOT / "annotations" / "panoptic_val2017.json"
    metadata = MetadataCatalog.get(f"coco_panoptic_seg://{COCO_ROOT}?split=val2017")
    numbers = {
        **metadata.thing_dataset_id_to_contiguous_id,
        **metadata.stuff_dataset_id_to_contiguous_id,
    }
    ids_of_json = {number: category for category, number in numbers.items()}
    evaluator, pairs = photos
    evaluator.reset()
    rng, rows = np.random.default_rng(0), []
    (tmp_path / "found").mkdir()
    for record, ids in pairs:
        found, left = np.roll(ids, rng.integers(-9, 10, 2), axis=(0, 1)), []
        for segment in record["segments_info"]:
            if rng.random() < 0.1:
                found[found == segment["id"]] = 0
            elif rng.random() < 0.1:
                left.append({"id": segment["id"], "category_id": int(rng.integers(133))})
            else:
                left.append({"id": segment["id"], "category_id": segment["category_id"]})
        evaluator.process([record], [{"panoptic_seg": (found, left)}])
        name = Path(record["pan_seg_file_name"]).name
        colors = np.stack([found >> shift & 255 for shift in (0, 8, 16)], axis=-1)
        Image.fromarray(colors.astype(np.uint8)).save(tmp_path / "found" / name)
        told = [{**s, "category_id": ids_of_json[s["category_id"]]} for s in left]
        rows.append({"image_id": record["image_id"], "file_name": name, "segments_info": told})
    results = evaluator.evaluate()["panoptic_seg"]
    (tmp_path / "found.json").write_text(json.dumps({"annotations": rows}))
    theirs = panoptic.PanopticEval(
        truth,
        tmp_path / "found.json",
        gt_folder=COCO_ROOT / "panoptic_val2017",
        pred_folder=tmp_path / "found",
    )
    theirs.evaluate()
    expected = theirs.results()
    for group, suffix in (("All", ""), ("Things", "_th"), ("Stuff", "_st")):
        for metric in ("PQ", "SQ", "RQ"):
            value = 100 * expected[group][metric.lower()]
            assert results[f"{metric}{suffix}"] == pytest.approx(value, abs=1e-6)
    assert 20 < results["PQ"] < 90


@pytest.mark.skipif(not COCO_ROOT.is_dir(), reason=f"no COCO in {COCO_ROOT}; see SEMSAM_DATA")
def test_real_photos_are_evaluated_from_file_to_the_three_tables_of_panoptic_models(tmp_path):
    cfg = get_cfg()
    cfg.DATALOADER.NUM_WORKERS, cfg.INPUT.MIN_SIZE_TEST = 0, 64
    cfg.OUTPUT_DIR = str(tmp_path)
    name = f"coco_panoptic_seg://{COCO_ROOT}?split=val2017"
    things = set(MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id.values())

    def find(batch):
        """The truth, as a model would give it."""
        (record,) = batch
        size = record["height"], record["width"]
        truth = decode_annotations(record, size)
        chosen = [i for i, number in enumerate(truth.classes) if number in things]
        masks, classes = truth.masks.decode()[chosen], truth.classes[chosen]
        labels = decode_labels(record)
        return [
            {
                "panoptic_seg": (decode_segments(record), record["segments_info"]),
                "sem_seg": np.where(labels == 255, 0, labels),
                "instances": instances(masks, [0.5] * len(chosen), classes, size),
            }
        ]

    loader = list(islice(build_test_loader(cfg, name), 3))
    results = inference_on_dataset(find, loader, build_evaluator(cfg, name))
    assert results["panoptic_seg"]["PQ"] == results["sem_seg"]["mIoU"] == 100
    assert 0 < results["segm"]["AP"] < 100
    assert len(list(tmp_path.glob("instances_predictions-*.json"))) == 1
