"""``tools/evaluate_named_masks.py``: proposals, named by a data set's classes, to AP."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from semsam.modeling import build_model
from semsam.modeling.text.classifier import Classifier
from tests.annotation.models import write_clip
from tests.evaluation.coco_files import (
    COCO_ROOT,
    SIZE,
    annotation,
    box_mask,
    needs_coco,
    write_coco_json,
)
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


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image_id": 1}, "entry 1 is no box: KeyError: 'bbox'"),
        ({"image_id": 1, "bbox": [1, 2, 3]}, "entry 1 is no box: TypeError"),
        ({"image_id": 1, "bbox": [1, 2, -3, 4]}, r"entry 1 is no box: .*\[1, 2, -3, 4\]"),
        ({"image_id": 1, "bbox": [1, 2, 3, 4], "score": None}, "entry 1 is no box: TypeError"),
        ({"image_id": 1, "bbox": [1, 2, 3, float("nan")]}, "entry 1 is no box: .*nan"),
    ],
)
def test_a_row_that_is_no_box_is_named(call, tmp_path, row, message):
    dataset = write_truth(tmp_path / "data" / "objects.json")
    good = {"image_id": 1, "bbox": [1, 2, 3, 4]}
    (tmp_path / "boxes.json").write_text(json.dumps([good, row]))
    with pytest.raises(ValueError, match=rf"boxes\.json': {message}"):
        call("--dataset", dataset, "--boxes", tmp_path / "boxes.json")


def test_boxes_of_other_images_are_an_error_and_images_without_boxes_are_counted(
    call, tmp_path, capsys
):
    dataset = write_truth(tmp_path / "data" / "objects.json")
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([{"image_id": "1", "bbox": [1, 2, 3, 4]}]))
    with pytest.raises(ValueError, match=r"boxes\.json' has no box in an image of 'coco_json"):
        call("--dataset", dataset, "--boxes", boxes)
    boxes.write_text(json.dumps([{"image_id": 1, "bbox": [1, 2, 3, 4]}]))
    call("--dataset", dataset, "--boxes", boxes)
    assert "1 of 2 images have no box" in capsys.readouterr().out


def write_classifier(path, names, encoder="clip"):
    weights = torch.nn.functional.normalize(torch.randn(len(names), 1, 16), dim=-1)
    Classifier(tuple(names), weights, encoder).save(path)
    return path


def test_a_classifier_that_does_not_fit_is_refused(call, tmp_path):
    dataset = write_truth(tmp_path / "data" / "objects.json")
    words = ["--dataset", dataset, "--boxes", "truth", "--classes"]
    foreign = write_classifier(tmp_path / "foreign.safetensors", ["a", "b"], "other-clip")
    with pytest.raises(ValueError, match=r"foreign\.safetensors': .*'other-clip'.*'clip'"):
        call(*words, foreign)
    for names in (["a"], ["a", "b", "c"]):
        with pytest.raises(ValueError, match=rf"--classes has {len(names)} classes, '.*' has 2"):
            call(*words, write_classifier(tmp_path / "wrong.safetensors", names))
    with pytest.raises(ValueError, match=r"instance' \(did you mean 'coco_2017_val_instances'"):
        call("--dataset", "coco_2017_val_instance")


def test_classes_that_are_called_otherwise_are_told(call, tmp_path, capsys):
    words = ["--dataset", write_truth(tmp_path / "data" / "objects.json"), "--boxes", "truth"]
    for names, told in (
        (["fire hydrant", "sky"], False),
        (["fire_hydrant", "sky"], False),
        (["sky", "fire hydrant"], True),
    ):
        call(*words, "--classes", write_classifier(tmp_path / "classes.safetensors", names))
        said = capsys.readouterr().out
        assert ("2 of 2 classes are called otherwise" in said) == told
    assert "'fire_hydrant' is 'sky' there" in said


def test_masks_of_the_background_are_left_out(call, tmp_path):
    dataset = write_truth(tmp_path / "data" / "objects.json")
    words = ["--dataset", dataset, "--boxes", "truth", "--classes"]
    names = ["a", "b"]
    number = []
    for more in ([], ["background"] * 40):
        torch.manual_seed(0)
        call(*words, write_classifier(tmp_path / "classes.safetensors", names + more))
        number.append(len(predictions(tmp_path / "out")))
    assert number[1] < number[0] == 3


def test_an_interrupted_evaluation_goes_on(call, tool, tmp_path, monkeypatch):
    dataset = write_truth(tmp_path / "data" / "objects.json")
    words = ["--dataset", dataset, "--boxes", "truth"]
    expected = call(*words)
    whole = predictions(tmp_path / "out")
    (journal,) = (tmp_path / "out").glob("instances-*.jsonl")
    first, second = journal.read_text().splitlines(keepends=True)
    journal.write_text(first + second[: len(second) // 2])
    seen = []
    find = tool.NamedInstances.__call__

    def counted(self, batch):
        seen.extend(record["image_id"] for record in batch)
        return find(self, batch)

    monkeypatch.setattr(tool.NamedInstances, "__call__", counted)
    assert call(*words, "--resume") == expected
    assert seen == [json.loads(second)["image_id"]]
    assert predictions(tmp_path / "out") == whole
    call(*words)
    assert len(seen) == 3


def test_data_sets_of_seginw_that_are_there_are_evaluated(call, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SEMSAM_DATASETS", str(tmp_path))
    source = tmp_path / "seginw" / "Puppies" / "valid" / "_annotations_min1cat.coco.json"
    cow = [annotation(1, 1, 0, box_mask(2, 2, 20, 20))]
    write_coco_json(source, cow, [{"id": 0, "name": "cow"}])
    results = call("--dataset", "seginw", "--boxes", "truth")
    assert results["segm"]["datasets"] == 1
    assert len(results["failures"]) == 24
    assert "24 of 25 datasets have no result: Airplane-Parts" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="a submission has 25 files"):
        call("--dataset", "seginw", "--boxes", "truth", "--submission", tmp_path / "seginw.zip")


def test_options_that_contradict_each_other_are_refused(tool):
    for words in (
        ["--dataset", "seginw", "--classes", "x"],
        ["--dataset", "a", "--submission", "z"],
    ):
        with pytest.raises(SystemExit):
            tool.parse_args(["--model", "m", "--output", "o", *words])


@needs_coco
def test_real_photos_of_a_panoptic_data_set_are_measured_by_its_things(call, tmp_path):
    source = json.loads((COCO_ROOT / "annotations" / "instances_val2017.json").read_text())
    image = source["images"][0]["id"]
    boxes = [row for row in source["annotations"] if row["image_id"] == image]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    dataset = f"coco_panoptic_seg://{COCO_ROOT}?split=val2017"
    call("--dataset", dataset, "--boxes", tmp_path / "boxes.json")
    found = predictions(tmp_path / "out")
    assert len(found) == len(boxes)
    assert {row["category_id"] for row in found} <= {row["id"] for row in source["categories"]}
