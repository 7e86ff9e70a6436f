"""``tools/evaluate_named_masks.py``: proposals, named by a data set's classes, to AP."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from semsam.modeling import build_model
from tests.annotation.models import write_clip
from tests.evaluation.coco_files import SIZE, annotation, box_mask, write_coco_json
from tests.tiny import perturb, tiny_ovsam_cfg

ROOT = Path(__file__).parents[2]
CATEGORIES = [{"id": 3, "name": "fire_hydrant"}, {"id": 7, "name": "sky-other-merged"}]


@pytest.fixture(scope="module")
def tool():
    path = ROOT / "tools" / "evaluate_named_masks.py"
    spec = importlib.util.spec_from_file_location("evaluate_named_masks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    cfg = tiny_ovsam_cfg(EMBED_DIM=16)
    cfg.MODEL.TEXT.MODEL = write_clip(folder / "clip")
    (folder / "config.yaml").write_text(cfg.dump())
    torch.manual_seed(0)
    model = perturb(build_model(cfg))
    torch.save({"model": model.state_dict()}, folder / "model_final.pth")
    return folder


@pytest.fixture
def call(tool, run_folder, tmp_path):
    def run(*words):
        fixed = ["--model", run_folder, "--device", "cpu", "--output", tmp_path / "out"]
        tool.main(tool.parse_args([str(word) for word in (*words, *fixed)]))
        return json.loads((tmp_path / "out" / "results.json").read_text())

    return run


def write_truth(path):
    objects = [
        annotation(1, 1, 3, box_mask(2, 2, 20, 20)),
        annotation(2, 1, 7, box_mask(30, 5, 20, 30)),
        annotation(3, 2, 7, box_mask(10, 10, 40, 20)),
    ]
    write_coco_json(path, objects, CATEGORIES)
    return f"coco_json://{path}"


def predictions(folder):
    (path,) = folder.glob("instances_predictions-*.json")
    return json.loads(path.read_text())


def test_automatic_masks_are_named_and_ranked(call, tmp_path):
    dataset = write_truth(tmp_path / "data" / "objects.json")
    words = ["--points-per-side", 3, "--pred-iou-thresh", -9, "--stability-score-thresh", 0]
    results = call("--dataset", dataset, *words)
    found = predictions(tmp_path / "out")
    assert {row["category_id"] for row in found} <= {3, 7}
    assert {row["image_id"] for row in found} <= {1, 2}
    assert found
    assert {"segm", "bbox"} <= set(results)


def test_masks_of_boxes_are_as_many_as_the_boxes(call, tmp_path):
    dataset = write_truth(tmp_path / "data" / "objects.json")
    call("--dataset", dataset, "--boxes", "truth")
    true = predictions(tmp_path / "out")
    assert sorted(row["image_id"] for row in true) == [1, 1, 2]
    assert all(row["segmentation"]["size"] == list(SIZE) for row in true)
    given = [{"image_id": 2, "bbox": [10, 10, 40, 20], "score": 0.5, "category_id": 3}]
    (tmp_path / "boxes.json").write_text(json.dumps(given))
    call("--dataset", dataset, "--boxes", tmp_path / "boxes.json")
    (row,) = predictions(tmp_path / "out")
    whole = next(other for other in true if other["image_id"] == 2)
    assert row["score"] == pytest.approx(0.5 * whole["score"], rel=1e-4)
    assert row["segmentation"] == whole["segmentation"]
    (tmp_path / "boxes.json").write_text('[{"image_id": 2}]')
    with pytest.raises(ValueError, match="entry 0 has no box"):
        call("--dataset", dataset, "--boxes", tmp_path / "boxes.json")


def test_data_sets_of_seginw_that_are_there_are_evaluated(call, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SEMSAM_DATASETS", str(tmp_path))
    source = tmp_path / "seginw" / "Cows" / "valid" / "_annotations_min1cat.coco.json"
    cow = [annotation(1, 1, 0, box_mask(2, 2, 20, 20))]
    write_coco_json(source, cow, [{"id": 0, "name": "cow"}])
    results = call("--dataset", "seginw", "--boxes", "truth")
    assert results["segm"]["datasets"] == 1
    with pytest.raises(FileNotFoundError, match="a submission has 25 files"):
        call("--dataset", "seginw", "--boxes", "truth", "--submission", tmp_path / "seginw.zip")


def test_options_that_contradict_each_other_are_refused(tool):
    for words in (
        ["--dataset", "seginw", "--classes", "x"],
        ["--dataset", "a", "--submission", "z"],
    ):
        with pytest.raises(SystemExit):
            tool.parse_args(["--model", "m", "--output", "o", *words])
