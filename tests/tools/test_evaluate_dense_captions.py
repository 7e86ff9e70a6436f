"""``tools/evaluate_dense_captions.py``: everything found and described, against a dataset."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from semsam.modeling import build_model
from tests.data.region_files import vg_region, write_visual_genome
from tests.evaluation.java import needs_java
from tests.tiny import tiny_caption_cfg, write_language_model

TOOL = Path(__file__).parents[2] / "tools" / "evaluate_dense_captions.py"
TASKS = {"dense captions", "any caption", *(f"METEOR > {i / 20}" for i in range(6))}


@pytest.fixture
def evaluate(tmp_path):
    """Run the tool with a tiny model of random weights on two photos; gives its results."""
    run = tmp_path / "run"
    run.mkdir()
    cfg = tiny_caption_cfg(write_language_model(tmp_path / "language_model"), MAX_LENGTH=6)
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, run / "model_final.pth")
    (run / "config.yaml").write_text(cfg.dump())
    whole = vg_region(20, "a red dog", x=0, y=0, width=60, height=40)
    write_visual_genome(tmp_path / "vg", {2: [whole], 3: [vg_region(30, "a cat on grass")]})
    tool = runpy.run_path(str(TOOL), run_name="tool")

    words = ["--model", run, "--dataset", f"visual_genome://{tmp_path / 'vg'}?split=test"]
    words += ["--output", tmp_path / "out", "--device", "cpu", "--points-per-side", 3]
    words += ["--pred-iou-thresh", -100, "--stability-score-thresh", 0]

    def call(*options, workers=1):
        arguments = [str(word) for word in (*words, *options)]
        if workers == 1:
            tool["main"](tool["parse_args"](arguments))
        else:
            command = [sys.executable, TOOL, *arguments, "--num-gpus", str(workers)]
            subprocess.run(command, check=True, cwd=TOOL.parents[1])
        return json.loads((tmp_path / "out" / "results.json").read_text())

    return call


def predictions(folder):
    (path,) = (folder / "out").glob("*.jsonl")
    return path


@needs_java
def test_an_interrupted_evaluation_resumes_with_the_results_of_an_unbroken_one(evaluate, tmp_path):
    whole = evaluate()
    assert set(whole) == TASKS
    assert whole["dense captions"]["regions"] == 2
    path = predictions(tmp_path)
    first, second = path.read_text().splitlines(keepends=True)
    assert json.loads(first)["references"] == [["a red dog"]]
    assert len(json.loads(first)["captions"]) == len(json.loads(first)["boxes"]) > 0
    # A mark by which to see that the first image is not described again.
    kept = first.replace('"captions": ["', '"captions": ["xylophone ')
    path.write_text(kept + second[:20])
    evaluate("--resume")
    assert path.read_text() == kept + second
    path.write_text(first + second[:20])
    assert evaluate("--resume") == whole


@needs_java
@pytest.mark.slow
def test_two_workers_give_the_results_of_one(evaluate, tmp_path):
    assert evaluate(workers=2) == evaluate()


@needs_java
def test_an_unreadable_photo_is_named_and_left_out(evaluate, tmp_path, capsys):
    (tmp_path / "vg" / "VG_100K" / "3.jpg").write_bytes(b"no photo")
    assert evaluate()["dense captions"]["regions"] == 1
    assert "3.jpg" in capsys.readouterr().out
