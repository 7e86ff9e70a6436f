"""Object queries and a vocabulary, from the files of COCO to losses and to the panoptic tables."""

import os
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from semsam.data import MetadataCatalog
from semsam.data.build import build_test_loader, build_train_loader
from semsam.evaluation import build_evaluator, inference_on_dataset
from semsam.modeling import build_model
from semsam.modeling.text.classifier import Classifier
from tests.tiny import perturb, tiny_cfg

COCO_ROOT = Path(os.environ.get("SEMSAM_DATA", "../shared/data")) / "coco"

pytestmark = pytest.mark.skipif(
    not COCO_ROOT.is_dir(), reason=f"no COCO in {COCO_ROOT}; see SEMSAM_DATA"
)


@pytest.fixture
def cfg(tmp_path):
    cfg = tiny_cfg(NUM_QUERIES=9)
    cfg.MODEL.REGION_HEADS.NAMES = ["TextClassHead"]
    node = cfg.MODEL.TEXT_CLASS
    node.EMBED_DIM, node.NUM_LAYERS = 16, 1
    node.SEMANTIC_TOKENS = node.HYPERNETWORKS = node.PREDICT_COSINE = False
    names = MetadataCatalog.get(dataset("val2017")).stuff_classes
    weights = F.normalize(torch.randn(len(names), 1, 16), dim=-1)
    Classifier(tuple(names), weights, "random").save(tmp_path / "coco.safetensors")
    cfg.MODEL.NAMING.VOCABULARIES = [f"coco_panoptic:{tmp_path / 'coco.safetensors'}"]
    cfg.DATALOADER.NUM_WORKERS, cfg.INPUT.MIN_SIZE_TEST = 0, 64
    cfg.INPUT.IMAGE_SIZE, cfg.INPUT.NUM_PROMPTS = 128, 4
    cfg.SOLVER.IMS_PER_BATCH, cfg.SEED = 2, 0
    cfg.OUTPUT_DIR = str(tmp_path)
    return cfg


def dataset(split):
    return f"coco_panoptic_seg://{COCO_ROOT}?split={split}"


def test_training_knows_all_that_is_in_an_image_and_its_classes(cfg):
    cfg.DATASETS.TRAIN = (dataset("train2017"),)
    batch = next(iter(build_train_loader(cfg)))
    assert [record["vocabulary"] for record in batch] == ["coco_panoptic"] * 2
    cfg.MODEL.NAMING.VOCABULARIES = []
    unnamed = next(iter(build_train_loader(cfg)))
    for record, other in zip(batch, unnamed, strict=True):
        assert "vocabulary" not in other
        assert len(record["instances"]) >= len(other["instances"])
        assert record["instances"].gt_classes.max() < 133


def test_training_takes_a_step_on_prompts_and_on_whole_images(cfg):
    cfg.DATASETS.TRAIN = (dataset("train2017"),)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    losses = model(next(iter(build_train_loader(cfg))))
    assert {"loss_mask_bce", "loss_contrastive", "loss_class_image"} <= set(losses)
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()


def test_a_model_is_evaluated_by_the_three_tables(cfg):
    torch.manual_seed(0)
    model = perturb(build_model(cfg)).eval()
    name = dataset("val2017")
    loader = list(islice(build_test_loader(cfg, name), 3))
    results = inference_on_dataset(model, loader, build_evaluator(cfg, name))
    assert {"panoptic_seg", "segm", "bbox", "sem_seg"} <= set(results)
    assert 0 <= results["panoptic_seg"]["PQ"] <= 100
