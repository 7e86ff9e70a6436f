"""Small photos with masks, written where a test wants them."""

import json

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

SIZE = (48, 64)
COLOURS = [(220, 40, 40), (40, 200, 60), (50, 60, 230), (230, 220, 60)]


def encode(mask):
    """A json-ready COCO run-length code."""
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": code["size"], "counts": code["counts"].decode()}


def rectangles(number, seed):
    """(N, H, W) bool."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((number, *SIZE), dtype=bool)
    for mask in masks:
        y, x = rng.integers(0, 30), rng.integers(0, 40)
        mask[y : y + 14, x : x + 20] = True
    return masks


def write_photo(folder, name, number=3, seed=0, suffix=".png"):
    """An image of coloured rectangles with a json of their masks as SA-1B has it."""
    masks = rectangles(number, seed)
    image = np.full((*SIZE, 3), 128, dtype=np.uint8)
    annotations = []
    for index, mask in enumerate(masks):
        image[mask] = COLOURS[(index + seed) % len(COLOURS)]
        y, x = np.argwhere(mask)[0].tolist()
        annotations.append(
            {
                "bbox": [x, y, 19, 13],
                "area": int(mask.sum()),
                "segmentation": encode(mask),
                "predicted_iou": 0.9,
                "point_coords": [[float(x), float(y)]],
                "crop_box": [0, 0, SIZE[1], SIZE[0]],
                "id": 1000 + index,
                "stability_score": 0.95,
            }
        )
    path = folder / f"{name}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    content = {"image": {"image_id": seed, "file_name": path.name}, "annotations": annotations}
    path.with_suffix(".json").write_text(json.dumps(content))
    return path


def write_photos(folder, number=6):
    """``photo_0`` and on, of one mask to four."""
    for index in range(number):
        write_photo(folder, f"photo_{index}", number=1 + index % 4, seed=index)
    return folder
