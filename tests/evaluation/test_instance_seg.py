import json

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from semsam.config import get_cfg
from semsam.data import DatasetCatalog, MetadataCatalog
from semsam.evaluation import build_evaluator
from semsam.evaluation.instance_seg import COCOEvaluator, evaluator_arguments
from semsam.structures import Boxes
from semsam.utils.file_io import write_json

from .coco_files import (
    COCO_ROOT,
    annotation,
    box_mask,
    encode,
    feed,
    instances,
    needs_coco,
    perturbed,
    write_coco_json,
)

CAT, DOG = box_mask(2, 2, 20, 20), box_mask(30, 5, 12, 30)
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
#: By rising id of the json: 0 is the cat.
IDS = {0: 3, 1: 7}
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@pytest.fixture
def truth(tmp_path):
    """A cat in each of two images, and a dog in the first."""
    objects = [
        annotation(0, 1, 3, CAT),
        annotation(1, 1, 7, DOG),
        annotation(2, 2, 3, CAT),
    ]
    return write_coco_json(tmp_path / "truth.json", objects, CATEGORIES)


@pytest.fixture
def evaluator(truth, tmp_path):
    file = tmp_path / "found.json"
    return COCOEvaluator(truth, IDS, ["cat", "dog"], prediction_file=file)


def test_objects_without_masks_are_compared_by_boxes(tmp_path):
    objects = [annotation(0, 1, 3, CAT), annotation(1, 1, 7, DOG)]
    for row in objects:
        del row["segmentation"]
    truth = write_coco_json(tmp_path / "truth.json", objects, CATEGORIES)
    evaluator = COCOEvaluator(truth, IDS, ["cat", "dog"])
    process(evaluator, 1, [CAT, DOG], [0.9, 0.8], [0, 1])
    results = evaluator.evaluate()
    assert set(results) == {"bbox"}
    assert round(results["bbox"]["AP"], 6) == 100


def process(evaluator, image_id, *args):
    record = {"image_id": image_id, "file_name": f"{image_id}.jpg"}
    evaluator.process([record], [{"instances": instances(*args)}])


@needs_coco
def test_numbers_on_real_photos_equal_those_of_pycocotools(tmp_path):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    dataset = f"coco_instances://{COCO_ROOT}?split=val2017"
    rng = np.random.default_rng(0)
    results = feed(
        build_evaluator(cfg, dataset), DatasetCatalog.get(dataset), lambda r: perturbed(r, rng)
    )
    (file,) = tmp_path.glob("instances_predictions-*.json")
    reference = COCO(MetadataCatalog.get(dataset).json_file)
    for task, other in (("bbox", "segmentation"), ("segm", "bbox")):
        rows = [
            {k: v for k, v in row.items() if k != other} for row in json.loads(file.read_text())
        ]
        theirs = COCOeval(reference, reference.loadRes(rows), task)
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
        expected = dict(zip(METRICS, 100 * theirs.stats, strict=False))
        assert {key: results[task][key] for key in METRICS} == pytest.approx(expected, abs=1e-9)
        assert 5 < results[task]["AP"] < results[task]["AP50"] < 95
        persons = theirs.eval["precision"][:, :, 0, 0, 2]
        assert results[task]["AP-person"] == pytest.approx(100 * persons.mean(), abs=1e-9)
    assert COCOEvaluator(**evaluator_arguments(dataset)).evaluate_file(file) == results


def test_what_is_right_everywhere_has_full_marks_although_an_object_has_id_zero(evaluator):
    process(evaluator, 1, [CAT, DOG], [0.9, 0.8], [0, 1])
    process(evaluator, 2, [CAT], [0.7], [0])
    results = evaluator.evaluate()
    for task in ("bbox", "segm"):
        assert results[task]["AP"] == pytest.approx(100)
        assert results[task]["AP-dog"] == pytest.approx(100)
        assert "APl" not in results[task]


def test_an_image_that_was_not_seen_has_nothing_found(evaluator, caplog):
    process(evaluator, 1, [CAT, DOG], [0.9, 0.8], [0, 1])
    with caplog.at_level("WARNING"):
        results = evaluator.evaluate()
    # Recall 0.5 is reached with precision 1: 51 of 101 points.
    assert results["segm"]["AP-cat"] == pytest.approx(5100 / 101)
    assert "1 of 2 images" in caplog.text


def test_without_anything_found_precision_is_zero(evaluator):
    process(evaluator, 1, [], [], [])
    results = evaluator.evaluate()
    assert results["bbox"]["AP"] == results["segm"]["AP"] == 0


def test_classes_become_categories_of_the_file(evaluator, tmp_path):
    process(evaluator, 1, [DOG], [0.5], [1])
    evaluator.evaluate()
    (row,) = json.loads((tmp_path / "found.json").read_text())
    assert row["category_id"] == 7
    assert row["bbox"] == [30, 5, 12, 30]
    assert row["segmentation"] == encode(DOG)


def test_masks_may_be_codes_and_boxes_may_be_given(evaluator):
    found = instances([CAT], [0.5], [0])
    found.remove("pred_masks")
    found.set("pred_masks", [encode(CAT)])
    found.set("pred_boxes", Boxes([[2, 2, 22, 40]]))
    evaluator.process([{"image_id": 1, "file_name": "1.jpg"}], [{"instances": found}])
    process(evaluator, 2, [CAT], [0.4], [0])
    results = evaluator.evaluate()
    assert results["segm"]["AP-cat"] == pytest.approx(100)
    assert results["bbox"]["AP-cat"] < 100


@pytest.mark.parametrize(
    ("image_id", "args", "message"),
    [
        (9, ([CAT], [0.5], [0]), "no image 9"),
        (1, ([CAT], [0.5], [2]), "class 2"),
        (1, ([CAT], [float("nan")], [0]), "nan"),
        (1, ([CAT[:, :50]], [0.5], [0], (40, 50)), r"\[40, 50\].*\[40, 60\]"),
    ],
)
def test_a_prediction_that_does_not_fit_is_an_error_that_names_the_file(
    evaluator, image_id, args, message
):
    with pytest.raises(ValueError, match=rf"'{image_id}\.jpg'.*{message}"):
        process(evaluator, image_id, *args)


def test_logits_and_missing_fields_are_errors(evaluator):
    found = instances([CAT], [0.5], [0])
    found.set("pred_masks", found.pred_masks.float())
    record = {"image_id": 1, "file_name": "1.jpg"}
    with pytest.raises(ValueError, match="masks are bool"):
        evaluator.process([record], [{"instances": found}])
    found.remove("pred_masks")
    with pytest.raises(ValueError, match="no field 'pred_masks'"):
        evaluator.process([record], [{"instances": found}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 5}, "no image 5"),
        ({"category_id": 5}, "no category 5"),
        ({"score": None}, "TypeError"),
        ({"segmentation": encode(CAT[:, :50])}, "50"),
    ],
)
def test_a_damaged_row_of_a_file_is_named(evaluator, tmp_path, change, message):
    process(evaluator, 1, [CAT, DOG], [0.9, 0.8], [0, 1])
    evaluator.evaluate()
    rows = json.loads((tmp_path / "found.json").read_text())
    rows[1].update(change)
    write_json(tmp_path / "found.json", rows)
    with pytest.raises(ValueError, match=rf"found\.json': row 1: .*{message}"):
        evaluator.evaluate_file(tmp_path / "found.json")


def test_a_file_without_boxes_has_those_of_its_masks(evaluator, tmp_path):
    process(evaluator, 1, [CAT, DOG], [0.9, 0.8], [0, 1])
    results = evaluator.evaluate()
    rows = json.loads((tmp_path / "found.json").read_text())
    for row in rows:
        del row["bbox"]
    write_json(tmp_path / "found.json", rows)
    assert evaluator.evaluate_file(tmp_path / "found.json") == results


def test_a_crowd_costs_nothing(tmp_path):
    objects = [annotation(1, 1, 3, CAT), annotation(2, 1, 3, DOG, iscrowd=1)]
    truth = write_coco_json(tmp_path / "truth.json", objects, CATEGORIES)
    evaluator = COCOEvaluator(truth, IDS, ["cat", "dog"])
    process(evaluator, 1, [CAT, DOG], [0.5, 0.9], [0, 0])
    assert evaluator.evaluate()["segm"]["AP-cat"] == pytest.approx(100)


def test_other_classes_than_the_json_s_or_two_of_a_name_are_errors(truth):
    with pytest.raises(ValueError, match="other categories"):
        COCOEvaluator(truth, {0: 3}, ["cat"])
    with pytest.raises(ValueError, match="two classes are called 'cat'"):
        COCOEvaluator(truth, IDS, ["cat", "cat"])


def test_objects_without_area_and_box_have_those_of_their_mask(truth, evaluator):
    process(evaluator, 1, [CAT, DOG], [0.9, 0.8], [0, 1])
    expected = evaluator.evaluate()
    content = json.loads(truth.read_text())
    for row in content["annotations"]:
        del row["area"], row["bbox"]
    write_json(truth, content)
    bare = COCOEvaluator(truth, IDS, ["cat", "dog"])
    process(bare, 1, [CAT, DOG], [0.9, 0.8], [0, 1])
    assert bare.evaluate() == expected
    content["annotations"][1]["image_id"] = 8
    write_json(truth, content)
    with pytest.raises(ValueError, match=r"truth\.json': annotation 1 of the list: KeyError: 8"):
        COCOEvaluator(truth, IDS, ["cat", "dog"])


def test_a_json_without_objects_is_an_error(tmp_path):
    crowd = annotation(1, 1, 3, CAT, iscrowd=1)
    truth = write_coco_json(tmp_path / "truth.json", [crowd], CATEGORIES)
    with pytest.raises(ValueError, match="no object"):
        COCOEvaluator(truth, IDS, ["cat", "dog"])


def test_a_dataset_without_a_json_says_what_to_set():
    MetadataCatalog.get("instances_of_a_test").set(evaluator_type="COCOEvaluator")
    try:
        with pytest.raises(ValueError, match=r"json_file.*set\(json_file"):
            build_evaluator(get_cfg(), "instances_of_a_test")
    finally:
        MetadataCatalog.remove("instances_of_a_test")


def _evaluate_share(rank, truth, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    evaluator = COCOEvaluator(truth, IDS, ["cat", "dog"])
    process(evaluator, rank + 1, [CAT], [0.5], [0])
    torch.save(evaluator.evaluate(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_ranks_agree_on_the_numbers_of_all_images(truth, tmp_path):
    mp.start_processes(
        _evaluate_share, args=(str(truth), str(tmp_path)), nprocs=2, start_method="fork"
    )
    results = torch.load(tmp_path / "0.pt")
    assert results == torch.load(tmp_path / "1.pt")
    assert results["segm"]["AP-cat"] == pytest.approx(100)


def test_parts_and_wholes_have_a_mean_each(tmp_path):
    categories = [
        {"id": 1, "name": "dog"},
        {"id": 2, "name": "dog:head"},
        {"id": 3, "name": "dog:leg"},
    ]
    head, leg = box_mask(30, 5, 8, 8), box_mask(30, 20, 6, 12)
    objects = [annotation(i, 1, i, m) for i, m in enumerate((DOG, head, leg), 1)]
    source = write_coco_json(tmp_path / "val.json", objects, categories)
    name = f"parts://{source}?images={tmp_path}"
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    evaluator = build_evaluator(cfg, name)
    process(evaluator, 1, [DOG, head], [0.9, 0.8], [0, 1])
    results = evaluator.evaluate()["segm"]
    assert results["AP wholes"] == results["AP-dog:head"] == pytest.approx(100)
    assert results["AP parts"] == pytest.approx(50)
