import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semsam.annotation.segmenters import Segmenter
from semsam.checkpoint import load_weights
from semsam.config import load_cfg
from semsam.engine import DefaultTrainer
from semsam.modeling import build_model

PROJECT = Path(__file__).parents[1]
CONFIG = PROJECT / "camvid_segformer.yaml"


def export(cfg, folder):
    spec = importlib.util.spec_from_file_location("export", PROJECT / "export.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.export(cfg, folder)


def write_street(root):
    """Two frames: sky above, road below, and a strip of nothing."""
    labels = np.zeros((36, 48), dtype=np.uint8)
    labels[20:], labels[18:20] = 3, 11
    photo = np.where(labels[..., None] == 3, 60, 200).astype(np.uint8).repeat(3, axis=2)
    for split in ("train", "test"):
        for name in ("a", "b"):
            for folder, pixels, end in ((split, photo, "jpg"), (f"{split}annot", labels, "png")):
                (root / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / folder / f"{name}.{end}")


def load(root, *more):
    return load_cfg(
        CONFIG,
        [
            f"DATASETS.TRAIN=('camvid://{root}?split=train',)",
            f"DATASETS.TEST=('camvid://{root}?split=test',)",
            f"OUTPUT_DIR={root / 'run'}",
            "MODEL.DEVICE=cpu",
            "MODEL.SEGFORMER.HIDDEN_SIZES=[8, 8, 16, 16]",
            "MODEL.SEGFORMER.DEPTHS=[1, 1, 1, 1]",
            "MODEL.SEGFORMER.NUM_HEADS=[1, 1, 2, 2]",
            "MODEL.SEGFORMER.DECODER_SIZE=16",
            "INPUT.IMAGE_SIZE=32",
            "INPUT.MIN_SIZE_TEST=36",
            "INPUT.MAX_SIZE_TEST=48",
            "DATALOADER.NUM_WORKERS=0",
            "SOLVER.MAX_ITER=40",
            "SOLVER.WARMUP_ITERS=2",
            "SOLVER.BASE_LR=0.01",
            *more,
        ],
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(configuration, results) of a short training."""
    root = tmp_path_factory.mktemp("camvid")
    write_street(root)
    cfg = load(root)
    return cfg, DefaultTrainer(cfg).train()


def test_a_few_steps_tell_the_sky_from_the_road(run):
    cfg, results = run
    found = results[cfg.DATASETS.TEST[0]]["sem_seg"]
    assert found["aAcc"] > 80
    assert found["mIoU present"] > 60


def test_the_exported_folder_is_a_segmenter_that_sees_the_same(run, tmp_path):
    cfg, _ = run
    weights = f"MODEL.WEIGHTS={Path(cfg.OUTPUT_DIR, 'model_final.pth')}"
    trained = load(Path(cfg.OUTPUT_DIR).parent, weights)
    export(trained, tmp_path)
    segmenter = Segmenter(str(tmp_path), device="cpu")
    assert segmenter.labels[3] == "road"
    image = np.array(Image.open(Path(cfg.OUTPUT_DIR).parent / "test" / "a.jpg"))
    model = build_model(trained).eval()
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
    load_weights(model, trained.MODEL.WEIGHTS)
    with torch.no_grad():
        expected = model([{"image": pixels, "height": 36, "width": 48}])[0]["sem_seg"].numpy()
    assert (segmenter.segment([image])[0] == expected).mean() > 0.9


def test_an_export_needs_weights(run, tmp_path):
    with pytest.raises(ValueError, match=r"MODEL\.WEIGHTS is empty"):
        export(run[0], tmp_path)


def test_a_batch_in_which_nothing_is_a_class_gives_a_loss_of_zero(run):
    model = build_model(run[0]).train()
    nothing = {
        "image": torch.zeros(3, 32, 32, dtype=torch.uint8),
        "sem_seg": torch.full((32, 32), 255),
    }
    assert model([nothing, nothing])["loss_sem_seg"] == 0
