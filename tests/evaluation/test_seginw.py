import json
import shutil
import zipfile
from functools import partial

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from semsam.config import get_cfg
from semsam.data import DatasetCatalog, MetadataCatalog
from semsam.data.datasets.instances import SEGINW_NAMES
from semsam.data.records import LazyImage
from semsam.evaluation import build_evaluator
from semsam.evaluation.instance_seg import COCOEvaluator, evaluator_arguments
from semsam.evaluation.seginw import evaluate_seginw, summarize_seginw, write_submission
from semsam.utils.file_io import write_json

from .coco_files import (
    COCO_ROOT,
    annotation,
    box_mask,
    feed,
    needs_coco,
    perfect,
    perturbed,
    write_coco_json,
)

MASK = box_mask(2, 2, 20, 20)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Files of predictions on three of the 25 datasets, which have two images each."""
    root = tmp_path_factory.mktemp("root")
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(root / "found")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMSAM_DATASETS", str(root))
        for name, least in (("Cows", 1), ("Hand", 2), ("Trash", 3)):
            objects = [annotation(number, number + 1, 0, MASK) for number in range(2)]
            source = root / "seginw" / name / "valid" / "_annotations_min1cat.coco.json"
            write_coco_json(source, objects, [{"id": 0, "name": name.lower()}])
            evaluator = build_evaluator(cfg, f"seginw_{name}_val")
            records = DatasetCatalog.get(f"seginw_{name}_val")
            feed(evaluator, records, lambda r, low=least: perfect(r)[: int(r["image_id"] >= low)])
        yield root / "found"


@pytest.fixture
def datasets(found, tmp_path):
    """A copy of the files of predictions."""
    return shutil.copytree(found, tmp_path / "found")


def test_mean_and_median_are_of_the_datasets_that_have_a_result_and_others_are_named(
    datasets, caplog
):
    (datasets / "seginw_Rail_val.json").write_text("[]")
    results, failures = evaluate_seginw(datasets)
    half = 5100 / 101
    assert results["segm"] == pytest.approx(
        {
            "mean AP": (100 + half) / 3,
            "median AP": half,
            "datasets": 3,
            "AP-Cows": 100,
            "AP-Hand": half,
            "AP-Trash": 0,
        }
    )
    assert len(failures) == 22
    assert not failures.keys() & {"Cows", "Hand", "Trash"}
    assert "seginw_Cows" not in caplog.text
    assert "'Rail' has no result" in caplog.text


def test_a_damaged_file_is_a_dataset_without_result(datasets):
    (datasets / "seginw_Cows_val.json").write_text('[{"image_id": 1}]')
    results, failures = evaluate_seginw(datasets)
    assert results["segm"]["datasets"] == 2
    assert "row 0" in failures["Cows"]


def test_predictions_that_are_missing_are_not_zero(datasets):
    (datasets / "seginw_Cows_val.json").unlink()
    results, failures = evaluate_seginw(datasets)
    assert results["segm"]["datasets"] == 2
    assert "seginw_Cows_val.json" in failures["Cows"]


def test_without_any_result_there_is_no_mean(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMSAM_DATASETS", str(tmp_path))
    with pytest.raises(RuntimeError, match="none of the 25"):
        evaluate_seginw(tmp_path)


def test_the_median_is_that_of_numbers_computed_by_hand():
    results = {name: {"segm": {"AP": value}} for name, value in (("a", 1), ("b", 2), ("c", 9))}
    assert summarize_seginw(results)["segm"]["mean AP"] == 4
    assert summarize_seginw(results)["segm"]["median AP"] == 2


def test_a_submission_is_a_zip_of_25_files_in_the_benchmark_s_form(datasets, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"seginw_Airplane-Parts_val\.json"):
        write_submission(datasets, tmp_path / "submission.zip")
    assert not (tmp_path / "submission.zip").exists()
    for name in SEGINW_NAMES:
        if not (datasets / f"seginw_{name}_val.json").exists():
            write_json(datasets / f"seginw_{name}_val.json", [])
    write_submission(datasets, tmp_path / "submission.zip")
    with zipfile.ZipFile(tmp_path / "submission.zip") as pack:
        assert sorted(pack.namelist()) == sorted(f"seginw_{name}_val.json" for name in SEGINW_NAMES)
        rows = json.loads(pack.read("seginw_Cows_val.json"))
    assert len(rows) == 2
    assert rows[0].keys() == {"image_id", "segmentation", "category_id", "score"}
    assert rows[0]["category_id"] == 0
    assert rows[0]["segmentation"].keys() == {"size", "counts"}
    assert isinstance(rows[0]["segmentation"]["counts"], str)


def test_there_are_25_datasets():
    assert len(set(SEGINW_NAMES)) == 25
    names = DatasetCatalog.list()
    assert all(f"seginw_{n}_{split}" in names for n in SEGINW_NAMES for split in ("train", "val"))


def write_real(root, name, categories):
    """Objects of some of COCO's classes on real photos, in the layout of a data set of SegInW."""
    source = json.loads((COCO_ROOT / "annotations" / "instances_val2017.json").read_text())
    numbers = {old: new for new, old in enumerate(categories)}
    objects = [
        {**row, "category_id": numbers[row["category_id"]]}
        for row in source["annotations"]
        if row["category_id"] in numbers
    ]
    shown = {row["image_id"] for row in objects}
    images = [image for image in source["images"] if image["id"] in shown]
    folder = root / "seginw" / name / "valid"
    folder.mkdir(parents=True)
    for image in images:
        (folder / image["file_name"]).symlink_to(
            (COCO_ROOT / "val2017" / image["file_name"]).resolve()
        )
    names = [{"id": number, "name": f"class {number}"} for number in numbers.values()]
    content = {"images": images, "annotations": objects, "categories": names}
    write_json(folder / "_annotations_min1cat.coco.json", content)


@needs_coco
def test_numbers_on_real_photos_equal_those_of_pycocotools(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMSAM_DATASETS", str(tmp_path))
    cfg, rng, expected = get_cfg(), np.random.default_rng(0), {}
    cfg.OUTPUT_DIR = str(tmp_path / "found")
    for name, categories in (("Bottles", [1]), ("Fruits", [62, 67, 44]), ("Garbage", [1, 3, 62])):
        write_real(tmp_path, name, categories)
        dataset = f"seginw_{name}_val"
        records = DatasetCatalog.get(dataset)
        assert all(LazyImage(r).size == (r["height"], r["width"]) for r in records)
        find = partial(perturbed, rng=rng, num_classes=len(categories))
        feed(build_evaluator(cfg, dataset), records, find)
        truth = COCO(MetadataCatalog.get(dataset).json_file)
        rows = json.loads((tmp_path / "found" / f"seginw_{name}_val.json").read_text())
        submitted = [{k: v for k, v in row.items() if k != "bbox"} for row in rows]
        theirs = COCOeval(truth, truth.loadRes(submitted), "segm")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
        expected[name] = 100 * theirs.stats[0]
    for name in set(SEGINW_NAMES) - expected.keys():
        write_json(tmp_path / "found" / f"seginw_{name}_val.json", [])
    write_submission(tmp_path / "found", tmp_path / "submission.zip")
    with zipfile.ZipFile(tmp_path / "submission.zip") as pack:
        pack.extractall(tmp_path / "submitted")
    results = {
        name: COCOEvaluator(**evaluator_arguments(f"seginw_{name}_val")).evaluate_file(
            tmp_path / "submitted" / f"seginw_{name}_val.json"
        )
        for name in expected
    }
    found = summarize_seginw(results)["segm"]
    assert {name: found[f"AP-{name}"] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert all(5 < value < 95 for value in expected.values())
    assert found["mean AP"] == pytest.approx(sum(expected.values()) / 3)
    assert found["median AP"] == pytest.approx(sorted(expected.values())[1])
