"""``tools/evaluate_masks.py``: automatic masks against a dataset."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from semsam.config import load_cfg
from semsam.modeling import build_model

from .tiny_run import CONFIG, write_images

ROOT = Path(__file__).parents[2]


@pytest.fixture
def evaluate(tmp_path):
    """Run the tool with a tiny model of random weights on a tiny data set; gives its results."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    torch.manual_seed(0)
    torch.save(build_model(load_cfg(run / "config.yaml")).state_dict(), run / "model_final.pth")
    write_images(tmp_path / "images")

    def call(name, *options):
        command = [
            *(sys.executable, ROOT / "tools/evaluate_masks.py", "--model", run),
            *("--dataset", f"sa1b_folder://{tmp_path / 'images'}", "--device", "cpu"),
            *("--min-size", "64", "--points-per-side", "3", "--pred-iou-thresh", "-100"),
            *("--stability-score-thresh", "0", "--output", tmp_path / name, *options),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return json.loads((tmp_path / name).read_text()), done.stdout + done.stderr

    return call


@pytest.mark.slow
def test_one_and_two_workers_give_the_same_results(evaluate):
    alone, _ = evaluate("alone.json")
    together, _ = evaluate("together.json", "--num-gpus", "2")
    assert alone == together
    assert {"AP", "AP50", "AR@10", "AR@1000"} <= set(alone["masks"])


def test_an_unreadable_photo_is_named_and_left_out(evaluate, tmp_path):
    (tmp_path / "images" / "sa_1.jpg").write_bytes(b"no photo")
    results, log = evaluate("results.json")
    assert results["masks"]["AR@1000"] >= 0
    assert "sa_1.jpg" in log
