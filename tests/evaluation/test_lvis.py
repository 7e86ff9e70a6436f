"""LVIS: classes that are searched for in some images alone, and are rare, common or frequent."""

import json
from copy import deepcopy

import numpy as np
import pytest
import torch

from semsam.config import get_cfg
from semsam.data import DatasetCatalog, MetadataCatalog
from semsam.evaluation import build_evaluator
from semsam.evaluation.average_precision import MAX_DETECTIONS_LVIS, match_objects
from semsam.utils.file_io import write_json

from .coco_files import (
    COCO_ROOT,
    SIZE,
    annotation,
    box_mask,
    feed,
    needs_coco,
    perfect,
    perturbed,
)

CAT, DOG = box_mask(2, 2, 20, 20), box_mask(30, 5, 12, 30)


def federated(objects, found, **of_images):
    """AP of class 1 by LVIS's rules."""
    images = [{"id": 1, "height": SIZE[0], "width": SIZE[1], **of_images}]
    categories = [{"id": number, "name": str(number), "frequency": "r"} for number in (1, 2)]
    truth = {"images": images, "annotations": objects, "categories": categories}
    rows = [
        {**annotation(0, 1, number, mask), "score": score}
        for number, mask, score in deepcopy(found)
    ]
    return match_objects(truth, rows, "segm", federated=True)[:, :, 0, 0].mean()


def test_what_is_found_of_a_class_that_was_not_searched_costs_nothing():
    objects, found = [annotation(1, 1, 1, CAT)], [(1, CAT, 0.5), (2, DOG, 0.9)]
    assert federated(objects, found) == pytest.approx(1)


def test_a_surplus_object_costs_unless_its_class_was_not_marked_exhaustively():
    objects, found = [annotation(1, 1, 1, CAT)], [(1, CAT, 0.5), (1, DOG, 0.9)]
    assert federated(objects, found) == pytest.approx(0.5)
    assert federated(objects, found, not_exhaustive_category_ids=[1]) == pytest.approx(1)


def test_an_image_without_objects_counts_for_the_classes_that_it_is_known_to_lack():
    images = [
        {"id": 1, "height": SIZE[0], "width": SIZE[1]},
        {"id": 2, "height": SIZE[0], "width": SIZE[1], "neg_category_ids": [1]},
        {"id": 3, "height": SIZE[0], "width": SIZE[1]},
    ]
    categories = [{"id": 1, "name": "cat", "frequency": "f"}]
    truth = {"images": images, "annotations": [annotation(1, 1, 1, CAT)], "categories": categories}
    rows = [{**annotation(0, image, 1, CAT), "score": image / 10} for image in (1, 2, 3)]
    precision = match_objects(truth, rows, "segm", federated=True)
    assert precision[:, :, 0, 0].mean() == pytest.approx(0.5)


def test_three_hundred_objects_an_image_count_whatever_their_class():
    assert MAX_DETECTIONS_LVIS == 300
    objects = [annotation(1, 1, 1, CAT)]
    others = [(2, DOG, 0.9)] * 299
    assert federated(objects, [*others, (1, CAT, 0.5)]) == pytest.approx(1)
    assert federated(objects, [*others, (2, DOG, 0.9), (1, CAT, 0.5)]) == 0


def write_lvis(folder, number, rng):
    """COCO's objects on real photos as LVIS has them: {class: frequency} and the data set's name.

    Some classes are known to be absent from an image, some are not marked exhaustively in it.
    """
    source = json.loads((COCO_ROOT / "annotations" / "instances_val2017.json").read_text())
    images = source["images"][:number]
    here = {image["id"] for image in images}
    objects = [a for a in source["annotations"] if a["image_id"] in here and not a["iscrowd"]]
    used = sorted({a["category_id"] for a in objects})
    frequencies = {category: "rcf"[i % 3] for i, category in enumerate(used)}
    for image in images:
        shown = {a["category_id"] for a in objects if a["image_id"] == image["id"]}
        absent = sorted(set(used) - shown)
        del image["file_name"]
        image["coco_url"] = f"http://images.cocodataset.org/val2017/{image['id']:012}.jpg"
        image["neg_category_ids"] = [c for c in absent if rng.random() < 0.3]
        image["not_exhaustive_category_ids"] = [c for c in sorted(shown) if rng.random() < 0.3]
    categories = [
        {"id": category, "name": f"class_{category}", "frequency": frequency}
        for category, frequency in frequencies.items()
    ]
    write_json(
        folder / "lvis" / "lvis_v1_minival.json",
        {"images": images, "annotations": objects, "categories": categories},
    )
    return frequencies, f"lvis://{folder}/lvis?split=v1_minival&images={COCO_ROOT}"


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    return cfg


@needs_coco
def test_real_photos_in_lvis_s_layout_are_evaluated_by_frequency(cfg, tmp_path):
    frequencies, name = write_lvis(tmp_path, 12, np.random.default_rng(0))
    rare = set(MetadataCatalog.get(name).category_groups["APr"])

    def without_rare(record):
        found = perfect(record)
        return found[torch.tensor([number not in rare for number in found.pred_classes.tolist()])]

    results = feed(build_evaluator(cfg, name), DatasetCatalog.get(name), without_rare)["segm"]
    assert results["APr"] == 0
    assert results["APc"] == results["APf"] == pytest.approx(100)
    assert results["AP"] == pytest.approx(100 * (1 - len(rare) / len(frequencies)))
    assert not any(metric.startswith("AP-") for metric in results)


@needs_coco
def test_numbers_on_real_photos_equal_those_of_another_implementation(cfg, tmp_path):
    hotcoco = pytest.importorskip("hotcoco", reason="hotcoco, which knows LVIS, is not installed")
    rng = np.random.default_rng(0)
    frequencies, name = write_lvis(tmp_path, 100, rng)
    results = feed(
        build_evaluator(cfg, name),
        DatasetCatalog.get(name),
        lambda record: perturbed(record, rng, len(frequencies)),
    )
    (file,) = tmp_path.glob("instances_predictions-*.json")
    truth = hotcoco.COCO(MetadataCatalog.get(name).json_file)
    for task, other in (("bbox", "segmentation"), ("segm", "bbox")):
        rows = [
            {k: v for k, v in row.items() if k != other} for row in json.loads(file.read_text())
        ]
        theirs = hotcoco.LVISeval(truth, truth.load_res(rows), task)
        theirs.run()
        expected = {key: 100 * value for key, value in theirs.get_results().items()}
        common = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
        assert {key: results[task][key] for key in common} == pytest.approx(
            {key: expected[key] for key in common}, abs=1e-6
        )
        assert 5 < results[task]["AP"] < 95
        assert len({results[task][key] for key in ("AP", "APr", "APc", "APf")}) == 4
