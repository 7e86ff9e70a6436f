"""``tools/demo.py`` as users run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from semsam.config import load_cfg
from semsam.modeling import build_model

from .tiny_run import CONFIG

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A tiny model as a training run leaves it, with two masks a click."""
    import yaml

    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    torch.manual_seed(0)
    model = build_model(load_cfg(folder / "config.yaml"))
    torch.save({"model": model.state_dict()}, folder / "model_final.pth")
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.jpg", (60, 80)), ("b.png", (90, 50))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def demo(run_folder, output, *arguments):
    return subprocess.run(
        [sys.executable, ROOT / "tools/demo.py", *map(str, arguments), "--output", str(output)]
        + ["--model", str(run_folder), "--device", "cpu", "--min-size", "64"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_folder_of_photos_gets_pictures_and_masks_for_each_prompt(run_folder, photos, tmp_path):
    out = tmp_path / "out"
    done = demo(
        run_folder, out, photos, "--point", 10, 20, "--point", 30, 30, "--box", 5, 5, 40, 50
    )
    assert done.returncode == 0, done.stderr
    assert {p.name for p in out.iterdir()} == {
        *(f"{name}_prompt{i}.png" for name in "ab" for i in range(3)),
        "a.json",
        "b.json",
    }
    answer = json.loads((out / "b.json").read_text())
    assert [prompt.get("point") for prompt in answer["prompts"]] == [[10, 20], [30, 30], None]
    assert answer["prompts"][2]["box"] == [5, 5, 40, 50]
    for mask in answer["prompts"][0]["masks"]:
        pixels = coco_mask.decode(mask["segmentation"])
        assert pixels.shape == (90, 50)
        assert pixels.sum() == mask["area"]
    assert [mask["level"] for mask in answer["prompts"][0]["masks"]] == [1, 2]


def test_without_a_prompt_the_middle_is_clicked(run_folder, photos, tmp_path):
    done = demo(run_folder, tmp_path, photos / "a.jpg", "--levels", 2)
    assert done.returncode == 0, done.stderr
    (prompt,) = json.loads((tmp_path / "a.json").read_text())["prompts"]
    assert prompt["point"] == [40, 30]
    assert [mask["level"] for mask in prompt["masks"]] == [2]


def test_everything_in_the_photos_of_a_glob(run_folder, photos, tmp_path):
    done = demo(run_folder, tmp_path, photos / "*.png", "--everything", "--points-per-side", 2)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b_everything.png").exists()
    assert "everything" in json.loads((tmp_path / "b.json").read_text())
    assert not (tmp_path / "a.json").exists()


def test_an_unreadable_file_is_named_and_the_others_are_done(run_folder, photos, tmp_path):
    data = (photos / "a.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(data[: len(data) // 2])
    done = demo(run_folder, tmp_path, photos, photos / "absent.jpg")
    assert done.returncode == 1
    assert "cut.jpg" in done.stderr + done.stdout
    assert "absent.jpg" in done.stderr + done.stdout
    assert (tmp_path / "a.json").exists()
    assert (tmp_path / "b.json").exists()


def test_no_image_at_all_is_an_error(run_folder, tmp_path):
    done = demo(run_folder, tmp_path, tmp_path / "*.jpg")
    assert done.returncode == 1
    assert "no image" in done.stderr + done.stdout
