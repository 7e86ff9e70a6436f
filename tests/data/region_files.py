"""A few photos with described regions, in the layouts of the datasets that have them."""

import json
import pickle

import numpy as np
from PIL import Image

SIZE = (40, 60)


def write_photo(path, seed=0, size=SIZE):
    """An image of noise; ``size`` (H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def vg_region(region_id, phrase="a grey wall", x=4, y=5, width=20, height=10):
    return {
        "region_id": region_id,
        "image_id": 0,
        "x": x,
        "y": y,
        "width": width,
        "height": height,
        "phrase": phrase,
    }


def write_visual_genome(root, regions):
    """Photos 1 (train), 2 and 3 (test); ``regions``: photo -> its regions."""
    photos = {1: "VG_100K", 2: "VG_100K_2", 3: "VG_100K"}
    for image_id, folder in photos.items():
        write_photo(root / folder / f"{image_id}.jpg", image_id)
    write_json(
        root / "image_data.json",
        [
            {
                "image_id": image_id,
                "height": SIZE[0],
                "width": SIZE[1],
                "url": f"https://cs.stanford.edu/people/rak248/{folder}/{image_id}.jpg",
            }
            for image_id, folder in photos.items()
        ],
    )
    write_json(
        root / "region_descriptions.json",
        [{"id": image_id, "regions": found} for image_id, found in regions.items()],
    )
    write_json(root / "densecap_splits.json", {"train": [1], "val": [], "test": [2, 3]})
    return root


def write_refcoco(root, refs, by="unc"):
    """Photo 5 with the objects 50 and 51."""
    write_photo(root.parent / "train2014" / "COCO_5.jpg")
    image = {"id": 5, "file_name": "COCO_5.jpg", "height": SIZE[0], "width": SIZE[1]}
    objects = [
        {"id": 50, "image_id": 5, "category_id": 1, "bbox": [1.5, 2.25, 10.5, 20], "iscrowd": 0},
        {
            "id": 51,
            "image_id": 5,
            "category_id": 1,
            "bbox": [30, 10, 20, 20],
            "segmentation": [[1]],
        },
    ]
    write_json(root / "instances.json", {"images": [image], "annotations": objects})
    # The protocol of Python 2, in which the released files are.
    (root / f"refs({by}).p").write_bytes(pickle.dumps(refs, protocol=2))
    return root


def make_ref(ref_id, split="val", ann_id=50, sentences=("man", "left man")):
    return {
        "ref_id": ref_id,
        "ann_id": ann_id,
        "image_id": 5,
        "category_id": 1,
        "split": split,
        "sentences": [{"sent": text, "raw": text.upper()} for text in sentences],
    }


def write_coco_json(path, file_names, annotations):
    """COCO's json: an image a name, ids from 1; categories 1 cat and 7 sofa."""
    images = [
        {"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
        for number, name in enumerate(file_names, start=1)
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 7, "name": "sofa"}]
    write_json(path, {"images": images, "annotations": annotations, "categories": categories})


def make_object(number, image_id=1, category_id=1, bbox=(1, 2, 10, 20.5), **more):
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(bbox),
        "iscrowd": 0,
        **more,
    }
