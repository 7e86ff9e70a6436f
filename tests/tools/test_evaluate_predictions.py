"""``tools/evaluate_predictions.py``: metrics of a file of results."""

import json
import subprocess
import sys
from pathlib import Path

from pycocotools import mask as coco_mask

from semsam.utils.file_io import write_json

ROOT = Path(__file__).parents[2]
BOX = [2, 2, 20, 20]


def write_truth(path):
    (code,) = coco_mask.frPyObjects([[2, 2, 22, 2, 22, 22, 2, 22]], 40, 60)
    code["counts"] = code["counts"].decode()
    row = {"image_id": 1, "category_id": 0, "segmentation": code}
    annotation = {**row, "id": 1, "bbox": BOX, "area": 400, "iscrowd": 0}
    images = [{"id": 1, "file_name": "1.jpg", "height": 40, "width": 60}]
    categories = [{"id": 0, "name": "cow"}]
    write_json(path, {"images": images, "annotations": [annotation], "categories": categories})
    return [{**row, "score": 0.5}]


def run(*arguments, datasets):
    return subprocess.run(
        [sys.executable, ROOT / "tools/evaluate_predictions.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "SEMSAM_DATASETS": str(datasets)},
    )


def test_a_file_of_results_is_measured_and_datasets_without_are_named(tmp_path):
    source = tmp_path / "seginw" / "Cows" / "valid" / "_annotations_min1cat.coco.json"
    write_json(tmp_path / "seginw_Cows_val.json", write_truth(source))
    one = run(
        *("--dataset", "seginw_Cows_val", tmp_path / "seginw_Cows_val.json"),
        *("--output", tmp_path / "one.json"),
        datasets=tmp_path,
    )
    assert one.returncode == 0, one.stderr
    assert round(json.loads((tmp_path / "one.json").read_text())["segm"]["AP-cow"], 6) == 100
    whole = run(
        "--dataset", "seginw", tmp_path, "--output", tmp_path / "all.json", datasets=tmp_path
    )
    assert whole.returncode == 1
    assert "24 of 25 datasets have no result: Airplane-Parts" in whole.stdout + whole.stderr
    results = json.loads((tmp_path / "all.json").read_text())
    assert results["segm"]["datasets"] == 1
    assert len(results["failures"]) == 24
