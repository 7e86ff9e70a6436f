"""A few small images in SA-1B format, written where a test wants them."""

import json

import numpy as np
from PIL import Image
from pycocotools import mask as mask_codes

SIZE = (40, 60)


def nested_masks(size=SIZE):
    """(3, H, W) bool: a whole, a part of it, and an object elsewhere."""
    height, width = size
    masks = np.zeros((3, height, width), dtype=bool)
    masks[0, 4 : height // 2, 4 : width // 2] = True
    masks[1, 8 : height // 3, 8 : width // 3] = True
    masks[2, height // 2 + 4 : -2, width // 2 + 4 : -2] = True
    return masks


def encode(mask):
    """A json-ready COCO run-length code."""
    code = mask_codes.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": code["size"], "counts": code["counts"].decode()}


def annotations_of(masks):
    """SA-1B annotations; the click is the first pixel of the mask."""
    return [
        {
            "segmentation": encode(mask),
            "point_coords": [[float(mask.any(0).argmax()), float(mask.any(1).argmax())]],
        }
        for mask in masks
    ]


def write_images(folder, number, suffix=".jpg"):
    """Write ``image_0`` and on, each of one grey of its own, with its json."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        grey = np.full((*SIZE, 3), 10 * index, dtype=np.uint8)
        Image.fromarray(grey).save(folder / f"image_{index}{suffix}")
        content = {"image": {}, "annotations": annotations_of(nested_masks())}
        (folder / f"image_{index}.json").write_text(json.dumps(content))
    return folder
