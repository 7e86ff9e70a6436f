"""Masks of SA-1B and names of generated boxes train one model, as many of each as is stated."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from semsam.data import build_train_loader
from semsam.data.datasets.tar import write_tar
from semsam.data.datasets.text_regions import encode_embeddings, text_region_row
from semsam.data.datasets.text_regions_tar import text_region_sample
from semsam.data.datasets.tsv import write_tsv
from semsam.modeling import build_model
from tests.tiny import tiny_ovsam_cfg

CHANNELS = 12


def photo(seed):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def masks_json():
    masks = np.zeros((48, 64, 2), dtype=np.uint8, order="F")
    masks[4:30, 6:40, 0] = masks[20:44, 30:60, 1] = 1
    codes = [{"size": c["size"], "counts": c["counts"].decode()} for c in coco_mask.encode(masks)]
    return json.dumps({"annotations": [{"segmentation": code} for code in codes]}).encode()


def named_boxes():
    vectors = np.eye(CHANNELS)[:2]
    names = ["dog", "tree"]
    annotations = [
        {
            "id": i,
            "bbox": [5 + 20 * i, 6, 18, 20],
            "class_name": name,
            "score": 0.5,
            "candidate": i,
            "text_embedding": i,
        }
        for i, name in enumerate(names)
    ]
    return {
        "annotations": annotations,
        "captions": ["dog"],
        "candidates": [],
        "generated_by": {},
        "text_embeddings": {"encoder": "clip", "texts": names, **encode_embeddings(vectors)},
    }


def write_shards(folder, form):
    masked = [(f"sa_{number}", photo(number), masks_json()) for number in range(6)]
    named = [(f"g_{number}", photo(100 + number), named_boxes()) for number in range(6)]
    if form == "tsv":
        rows = [[name.encode(), text, base64.b64encode(file)] for name, file, text in masked]
        write_tsv(folder / "masks" / "s.tsv", rows)
        write_tsv(folder / "names" / "s.tsv", [text_region_row(*row) for row in named])
    else:
        samples = [{"png": file, "json": text} for _, file, text in masked]
        write_tar(folder / "masks" / "sa.tar", samples)
        write_tar(folder / "names" / "s.tar", [text_region_sample(*row) for row in named])


@pytest.fixture(params=["tsv", "tar"])
def cfg(tmp_path, request):
    form = request.param
    write_shards(tmp_path, form)
    cfg = tiny_ovsam_cfg()
    cfg.MODEL.TEXT_CLASS.TEXT_PROMPTS = True
    cfg.INPUT.IMAGE_SIZE, cfg.INPUT.NUM_PROMPTS, cfg.INPUT.TEXT_PROMPT_RATIO = 64, 4, 0.5
    cfg.INPUT.PROMPT_NOISE = 0.05
    cfg.DATASETS.TRAIN = (
        f"sa1b_{form}://{tmp_path / 'masks'}",
        f"text_regions_{form}://{tmp_path / 'names'}",
    )
    cfg.DATASETS.TRAIN_SHARES = (1, 4)
    cfg.DATALOADER.NUM_WORKERS, cfg.SOLVER.IMS_PER_BATCH, cfg.SEED = 0, 5, 0
    return cfg


def test_each_batch_has_one_photo_with_masks_and_four_with_names(cfg):
    batches = iter(build_train_loader(cfg))
    for _ in range(3):
        batch = next(batches)
        assert sorted(record["image_id"][:2] for record in batch) == ["g_"] * 4 + ["sa"]


def test_both_kinds_train_what_they_know(cfg):
    torch.manual_seed(0)
    model = build_model(cfg).train()
    batches = iter(build_train_loader(cfg))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for _ in range(60):
        losses = model(next(batches))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    assert {"loss_mask_dice", "loss_contrastive", "loss_cosine"} <= set(history[0])

    def mean(rows, name):
        return np.mean([row[name] for row in rows])

    assert mean(history[-10:], "loss_contrastive") < 0.8 * mean(history[:5], "loss_contrastive")
    assert mean(history[-10:], "loss_mask_dice") < mean(history[:5], "loss_mask_dice")


def test_names_of_another_text_encoder_are_refused(cfg):
    cfg.MODEL.TEXT.MODEL = "openai/clip-vit-base-patch32"
    model = build_model(cfg).train()
    message = r"/s\.t..:[-\w]+': its names were encoded by 'clip', the model learns .* 'openai"
    with pytest.raises(ValueError, match=message):
        model(next(iter(build_train_loader(cfg))))
