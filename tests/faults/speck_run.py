"""A run of the tiny model of ``speck.py``."""

from pathlib import Path

import yaml

from tests.tools.tiny_run import CONFIG, write_images

MAX_ITER = 10


def write_config(folder):
    """Images and a yaml file in a folder: checkpoints after 3, 6 and 9 steps."""
    write_images(folder / "images")
    content = {
        "IMPORTS": [str(Path(__file__).with_name("speck.py"))],
        "SEED": 7,
        "MODEL": {"META_ARCHITECTURE": "Speck", "DEVICE": "cpu"},
        "INPUT": CONFIG["INPUT"],
        "DATASETS": {"TRAIN": [f"sa1b_folder://{folder / 'images'}"]},
        "DATALOADER": {"NUM_WORKERS": 0},
        "SOLVER": {
            **{"IMS_PER_BATCH": 2, "MAX_ITER": MAX_ITER, "STEPS": [], "BASE_LR": 0.01},
            **{"LOG_PERIOD": 2, "CHECKPOINT_PERIOD": 3, "KEEP_CHECKPOINTS": 0},
        },
    }
    path = folder / "speck.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
