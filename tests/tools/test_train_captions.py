"""The whole way of captions: regions -> training -> a checkpoint of what learned -> evaluation."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from semsam.modeling import build_model
from tests.evaluation.java import needs_java
from tests.tiny import tiny_caption_cfg, tiny_sam_cfg, write_language_model

REPO = Path(__file__).parents[2]
COLOURS = {"red": (220, 40, 40), "blue": (40, 40, 220)}


def write_regions(root, number=8):
    """COCO-style files: a red and a blue square an image, and their colours as categories."""
    (root / "val2017").mkdir(parents=True)
    images, annotations = [], []
    rng = np.random.default_rng(0)
    for i in range(number):
        pixels = np.full((64, 64, 3), 120, np.uint8)
        for j, colour in enumerate(COLOURS.values()):
            x, y = int(rng.integers(2, 14)) + 32 * j, int(rng.integers(2, 44))
            pixels[y : y + 16, x : x + 16] = colour
            annotations.append(
                {"id": 2 * i + j, "image_id": i, "category_id": j, "bbox": [x, y, 16, 16]}
            )
        Image.fromarray(pixels).save(root / "val2017" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 64, "width": 64})
    categories = [{"id": j, "name": f"a {name} dog"} for j, name in enumerate(COLOURS)]
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_val2017.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )


@pytest.fixture
def config(tmp_path):
    write_regions(tmp_path / "coco")
    language_model = write_language_model(tmp_path / "language_model")
    torch.manual_seed(0)
    torch.save(build_model(tiny_sam_cfg()).state_dict(), tmp_path / "sam.pth")
    cfg = tiny_caption_cfg(language_model, TRAIN_LANGUAGE_MODEL=True, MAX_LENGTH=6, NUM_BEAMS=1)
    cfg.MODEL.CAPTION.TOKENS, cfg.MODEL.CAPTION.ROI_SIZE = "roi", 2
    cfg.MODEL.WEIGHTS = str(tmp_path / "sam.pth")
    cfg.MODEL.FREEZE = ["decoder"]
    cfg.SOLVER.BACKBONE_MULTIPLIER = 1.0
    cfg.INPUT.IMAGE_SIZE = cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = 64
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (f"coco_classes://{tmp_path / 'coco'}",)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR = 60, 4, 5e-3
    cfg.SOLVER.LR_SCHEDULER_NAME, cfg.SOLVER.CLIP_GRADIENT_NORM = "WarmupCosineLR", 1.0
    cfg.TEST.CAPTION.METRICS = ["Exact"]
    path = tmp_path / "captions.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(cfg.dump())))
    return path


def run(config, output, *options):
    command = [sys.executable, REPO / "tools/train_net.py", "--config-file", config]
    subprocess.run([*command, f"OUTPUT_DIR={output}", *options], check=True, cwd=REPO)
    (results,) = json.loads((output / "results.json").read_text()).values()
    return results["captions"]


@pytest.mark.slow
@needs_java
def test_captions_are_learned_stored_without_what_is_frozen_and_evaluated_again(config, tmp_path):
    trained = run(config, tmp_path / "run")
    assert trained["regions"] == 16
    assert trained["Exact"] > 80
    checkpoint = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
    assert not any(key.startswith("decoder.") for key in checkpoint["model"])
    weights = f"MODEL.WEIGHTS={tmp_path / 'run' / 'model_final.pth'}"
    again = run(config, tmp_path / "again", "--eval-only", "--num-gpus", "2", weights)
    assert again == trained
    lines = [
        json.loads(line)
        for path in (tmp_path / "again").glob("predictions-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert sorted(line["region_id"] for line in lines) == list(range(16))
