"""COCO-style jsons on blank photos, and predictions made of their objects."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from semsam.data.records import decode_annotations
from semsam.data.run_length import to_coco_code
from semsam.structures import Instances
from semsam.utils.file_io import write_json

DATA_ROOT = Path(os.environ.get("SEMSAM_DATA", "../shared/data"))
COCO_ROOT = DATA_ROOT / "coco"
SIZE = (40, 60)
needs_coco = pytest.mark.skipif(
    not COCO_ROOT.is_dir(), reason=f"no COCO in {COCO_ROOT}; see SEMSAM_DATA"
)


def box_mask(x, y, width, height, size=SIZE):
    """(H, W) bool, a rectangle."""
    mask = np.zeros(size, dtype=bool)
    mask[y : y + height, x : x + width] = True
    return mask


def encode(mask):
    """A run-length code, its counts as text."""
    code = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return to_coco_code(code, mask.shape)


def annotation(number, image_id, category_id, mask, **more):
    code = encode(mask)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": code,
        "area": int(mask.sum()),
        "bbox": coco_mask.toBbox(code).tolist(),
        "iscrowd": 0,
        **more,
    }


def write_coco_json(path, annotations, categories, image_ids=(1, 2), **of_images):
    """A json beside its photos; ``of_images`` are further keys of all of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = []
    for number in image_ids:
        Image.new("RGB", SIZE[::-1]).save(path.parent / f"{number}.jpg")
        size = {"height": SIZE[0], "width": SIZE[1]}
        images.append({"id": number, "file_name": f"{number}.jpg", **size, **of_images})
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_json(path, content)
    return path


def instances(masks, scores, classes, size=SIZE):
    return Instances(
        size,
        pred_masks=torch.from_numpy(np.array(masks, dtype=bool).reshape(-1, *size)),
        scores=torch.tensor(scores, dtype=torch.float64),
        pred_classes=torch.tensor(classes, dtype=torch.int64),
    )


def perfect(record):
    """What a model without fault would find in a record of instances."""
    size = record["height"], record["width"]
    truth = decode_annotations(record, size)
    number = len(truth.classes)
    return instances(truth.masks.decode(), [0.9] * number, truth.classes, size)


def perturbed(record, rng, num_classes=80):
    """Objects of the truth, moved, some of them missing or of another class."""
    size = record["height"], record["width"]
    truth = decode_annotations(record, size)
    masks = [np.roll(m, rng.integers(-8, 9, 2), axis=(0, 1)) for m in truth.masks.decode()]
    kept = [i for i in range(len(masks)) if rng.random() > 0.1]
    classes = np.where(
        rng.random(len(masks)) < 0.2, rng.integers(0, num_classes, len(masks)), truth.classes
    )
    # Rounded, so that there are ties.
    scores = rng.random(len(kept)).round(2)
    return instances([masks[i] for i in kept], scores, classes[kept], size)


def feed(evaluator, records, find=perfect):
    for record in records:
        evaluator.process([record], [{"instances": find(record)}])
    return evaluator.evaluate()
