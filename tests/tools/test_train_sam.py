"""SAM as it is trained and evaluated: clicks and boxes, rounds of corrections, then 1-IoU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from semsam.config import load_cfg
from tests.tiny import tiny_sam_cfg

from .tiny_run import write_images

REPO = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path):
    """``configs/Base-SAM.yaml`` with the sizes of the tiny SAM."""
    write_images(tmp_path / "images")
    tiny = yaml.safe_load(tiny_sam_cfg().dump())
    data = [f"sa1b_folder://{tmp_path / 'images'}"]
    content = {
        "_BASE_": str(REPO / "configs/Base-SAM.yaml"),
        "SEED": 7,
        "MODEL": {
            **{key: tiny["MODEL"][key] for key in ("DEVICE", "SAM", "DECODER")},
            "CRITERION": {"NUM_POINTS": 256},
        },
        "INPUT": {
            **{"IMAGE_SIZE": 64, "MIN_SIZE_TEST": 64, "MAX_SIZE_TEST": 64, "NUM_PROMPTS": 4},
            "PHOTO": {"MIN_SIZE": 64, "MAX_SIZE": 64},
        },
        "DATASETS": {"TRAIN": data, "TEST": data},
        "DATALOADER": {"NUM_WORKERS": 0},
        "SOLVER": {
            **{"IMS_PER_BATCH": 2, "MAX_ITER": 60, "STEPS": [], "WARMUP_ITERS": 5},
            **{"BASE_LR": 3.0e-3, "BACKBONE_MULTIPLIER": 1.0},
        },
    }
    path = tmp_path / "sam.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(config, output, *options):
    command = [sys.executable, REPO / "tools/train_net.py", "--config-file", config]
    subprocess.run([*command, f"OUTPUT_DIR={output}", *options], check=True, cwd=REPO)
    (results,) = json.loads((output / "results.json").read_text()).values()
    return results


@pytest.mark.slow
def test_eleven_rounds_train_a_model_that_is_evaluated_again_by_its_file(config, tmp_path):
    assert load_cfg(config).MODEL.PROMPT_ROUNDS == 11
    trained = run(config, tmp_path / "run")
    weights = f"MODEL.WEIGHTS={tmp_path / 'run' / 'model_final.pth'}"
    assert run(config, tmp_path / "again", "--eval-only", weights) == trained
    assert set(trained) == {"max", "oracle", "granularity"}
    # The whole image as the answer to every click would have 16.
    assert trained["oracle"]["1-IoU"] > 30
