"""A data set and a configuration so small that a training run takes seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from pycocotools import mask as mask_utils

from semsam.utils.events import read_metrics

ROOT = Path(__file__).parents[2]
CLOCKS = {"time", "data_time"}
CONFIG = {
    "SEED": 7,
    "MODEL": {
        "DEVICE": "cpu",
        "SWIN": {
            "EMBED_DIM": 8,
            "DEPTHS": [1, 1, 1, 1],
            "NUM_HEADS": [1, 1, 2, 2],
            "WINDOW_SIZE": 4,
        },
        "PIXEL_DECODER": {
            "CONV_DIM": 64,
            "MASK_DIM": 64,
            "NUM_LAYERS": 1,
            "NUM_HEADS": 2,
            "DIM_FEEDFORWARD": 32,
        },
        "DECODER": {
            "HIDDEN_DIM": 64,
            "NUM_LAYERS": 2,
            "NUM_HEADS": 2,
            "DIM_FEEDFORWARD": 32,
            "NUM_TOKENS": 2,
        },
        "CRITERION": {"NUM_POINTS": 64},
    },
    "INPUT": {"IMAGE_SIZE": 64, "MIN_SIZE_TEST": 64, "MAX_SIZE_TEST": 64, "NUM_PROMPTS": 3},
    "DATALOADER": {"NUM_WORKERS": 0},
    "SOLVER": {
        "IMS_PER_BATCH": 2,
        "BASE_LR": 1.0e-3,
        "STEPS": [30],
        "WARMUP_ITERS": 5,
        "WARMUP_FACTOR": 0.1,
        "CLIP_GRADIENT_NORM": 1.0,
        "MAX_ITER": 40,
        "LOG_PERIOD": 2,
        "CHECKPOINT_PERIOD": 5,
    },
    "TEST": {"EVAL_PERIOD": 15},
}


def write_images(folder, number=5, size=64):
    """Rectangles with a smaller one inside, as jpg and json in SA-1B's form."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(number):
        image = rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
        annotations = []
        x, y = rng.integers(2, size // 2 - 4, 2)
        for side, colour in ((size // 2, (200, 60, 40)), (size // 4, (40, 80, 220))):
            mask = np.zeros((size, size), dtype=np.uint8, order="F")
            mask[y : y + side, x : x + side] = 1
            image[mask > 0] = colour
            rle = mask_utils.encode(mask)
            annotations.append(
                {
                    "segmentation": {"size": [size, size], "counts": rle["counts"].decode()},
                    "point_coords": [[float(x + side / 4), float(y + side / 4)]],
                }
            )
        Image.fromarray(image).save(folder / f"sa_{i}.jpg", quality=95)
        record = {"image": {"image_id": i, "height": size, "width": size}}
        (folder / f"sa_{i}.json").write_text(json.dumps({**record, "annotations": annotations}))


def write_config(path, images, output_dir):
    """The tiny run as a yaml file; it is evaluated on what it is trained on."""
    name = f"sa1b_folder://{images}"
    config = {**CONFIG, "OUTPUT_DIR": str(output_dir)}
    config["DATASETS"] = {"TRAIN": [name], "TEST": [name]}
    path.write_text(yaml.safe_dump(config))
    return path


def start(config, output, *arguments, tool="train_net.py", launcher=()):
    """A tool as a process, in a session of its own."""
    command = [sys.executable, *launcher, str(ROOT / "tools" / tool), "--config-file", str(config)]
    return subprocess.Popen(
        [*command, f"OUTPUT_DIR={output}", *arguments],
        cwd=config.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process, fails=False):
    """Wait for a process that ``start`` gave; returns what it wrote."""
    text, _ = process.communicate(timeout=240)
    assert (process.returncode != 0) == fails, text[-4000:]
    return text


def run(*arguments, fails=False, **options):
    """``start`` and ``finish``."""
    return finish(start(*arguments, **options), fails)


def lines(output):
    """What was measured, without clocks."""
    found = read_metrics(output / "metrics.json")
    return [{k: v for k, v in line.items() if k not in CLOCKS} for line in found]
