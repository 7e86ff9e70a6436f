"""Small photos with masks, written where a test wants them."""

import base64
import json

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from semsam.data.datasets.tsv import write_tsv

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


def row_of(folder, name):
    """The columns of a photo in a shard."""
    masks, image = ((folder / f"{name}{suffix}").read_bytes() for suffix in (".json", ".png"))
    return [name.encode(), masks, base64.b64encode(image)]


def pack_photos(folder, photos, rows_per_shard=2):
    """The photos of a folder as shards ``s0.tsv`` and on; the last name is in the first row."""
    names = sorted((path.stem for path in photos.glob("*.png")), reverse=True)
    for start in range(0, len(names), rows_per_shard):
        rows = [row_of(photos, name) for name in names[start : start + rows_per_shard]]
        write_tsv(folder / f"s{start // rows_per_shard}.tsv", rows)
    return folder


def write_labels(shard, rows):
    """``NAME.label`` and its index beside ``NAME.tsv``."""
    written = shard.with_name("labels.tsv")
    write_tsv(written, rows)
    written.rename(shard.with_suffix(".label"))
    written.with_suffix(".lineidx").rename(shard.with_suffix(".label.lineidx"))
