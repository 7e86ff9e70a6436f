"""Tiny data sets in the layouts of ADE20K, PACO, Pascal-Part, PartImageNet and Objects365."""

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from semsam.data.run_length import to_coco_code
from semsam.utils.file_io import write_json

SIZE = (48, 64)
#: ADE20K's classes here: two kinds of stuff and, between them, a thing.
ADE_CATEGORIES = [
    {"id": 0, "name": "wall", "isthing": 0, "color": [120, 120, 120]},
    {"id": 1, "name": "bed", "isthing": 1, "color": [204, 5, 255]},
    {"id": 2, "name": "window ", "isthing": 0, "color": [230, 230, 230]},
]
PACO_CATEGORIES = [
    {"supercategory": "OBJECT", "id": 5, "name": "dog", "frequency": "f"},
    {"supercategory": "PART", "id": 90, "name": "dog:head", "frequency": "r"},
    {"supercategory": "OBJECT", "id": 7, "name": "car_(automobile)", "frequency": "f"},
    {"supercategory": "PART", "id": 91, "name": "car_(automobile):wheel", "frequency": "c"},
]
PASCAL_CATEGORIES = [
    {"id": 1, "name": "dog:head"},
    {"id": 2, "name": "bus:license plate", "abbr": "bus:liplate"},
]
PARTIMAGENET_CATEGORIES = [
    {"id": 0, "name": "Quadruped Head", "supercategory": "Quadruped"},
    {"id": 1, "name": "Car Side Mirror", "supercategory": "Car"},
]
O365_CATEGORIES = [{"id": 3, "name": "Chair"}, {"id": 1, "name": "Person"}]


def write_photo(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def image_row(number, file_name, **more):
    return {"id": number, "file_name": file_name, "height": SIZE[0], "width": SIZE[1], **more}


def rectangle(x, y, width, height):
    """A run-length code, its counts as text."""
    mask = np.zeros(SIZE, dtype=np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    return to_coco_code(coco_mask.encode(mask), SIZE)


def box_of(x, y, width, height, **more):
    return {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0, **more}


def write_ade20k(root, split="train", number=2):
    """``ADEChallengeData2016`` as Mask2Former's scripts leave it; a wall, two beds, a window."""
    folder = {"train": "training", "val": "validation"}[split]
    places = {1: (0, 0, 64, 20), 300: (4, 22, 20, 20), 70001: (30, 22, 30, 20), 2: (0, 44, 64, 4)}
    classes = {1: 0, 300: 1, 70001: 1, 2: 2}
    images, annotations, objects = [], [], []
    for i in range(1, number + 1):
        name = f"ADE_{split}_{i:08d}"
        write_photo(root / "images" / folder / f"{name}.jpg", i)
        images.append(image_row(name, f"{name}.jpg"))
        ids = np.zeros(SIZE, dtype=np.int64)
        for key, (x, y, width, height) in places.items():
            ids[y : y + height, x : x + width] = key
        colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2)
        path = root / f"ade20k_panoptic_{split}" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(colours.astype(np.uint8)).save(path)
        segments = [
            {"id": key, "category_id": classes[key], **box_of(*place)}
            for key, place in places.items()
        ]
        annotations.append(
            {"image_id": name, "file_name": f"{name}.png", "segments_info": segments}
        )
        for key in (300, 70001):
            row = {"id": len(objects) + 1, "image_id": name, "category_id": 1}
            objects.append({**row, "segmentation": rectangle(*places[key]), **box_of(*places[key])})
    content = {"images": images, "annotations": annotations, "categories": ADE_CATEGORIES}
    write_json(root / f"ade20k_panoptic_{split}.json", content)
    instances = {"images": images, "annotations": objects, "categories": ADE_CATEGORIES[1:2]}
    write_json(root / f"ade20k_instance_{split}.json", instances)


def write_paco(root, coco, split="train", number=2, categories=PACO_CATEGORIES):
    """A dog with its head and a car with its wheel; the second car is known by its box alone."""
    images, annotations = [], []
    for i in range(1, number + 1):
        write_photo(coco / "train2017" / f"{i:012d}.jpg", i)
        more = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
        images.append(image_row(i, f"train2017/{i:012d}.jpg", **more))
        parts = [
            (5, (4, 4, 24, 30)),
            (90, (4, 4, 10, 10)),
            (7, (34, 10, 28, 30)),
            (91, (36, 30, 8, 8)),
        ]
        whole = 0
        for category, place in parts:
            key = len(annotations) + 1
            whole = key if category < 90 else whole
            row = {"id": key, "image_id": i, "category_id": category, "obj_ann_id": whole}
            annotations.append({**row, "segmentation": rectangle(*place), **box_of(*place)})
        row = {"id": len(annotations) + 1, "image_id": i, "category_id": 7}
        annotations.append({**row, "segmentation": [], **box_of(0, 0, 4, 4)})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": categories,
        "part_categories": [{"supercategory": "PART", "id": 0, "name": "head"}],
        "attributes": [],
    }
    write_json(root / "annotations" / f"paco_lvis_v1_{split}.json", content)


def write_pascal_part(root, split="train"):
    write_photo(root / "VOCdevkit" / "VOC2010" / "JPEGImages" / "2008_000002.jpg")
    place = (4, 4, 24, 30)
    row = {"id": 0, "image_id": 2008000002, "category_id": 2, "iscrowd": 0}
    content = {
        "images": [image_row(2008000002, "2008_000002.jpg")],
        "annotations": [{**row, "segmentation": rectangle(*place), **box_of(*place)}],
        "categories": PASCAL_CATEGORIES,
    }
    write_json(root / f"{split}.json", content)


def write_partimagenet(root, split="train"):
    """The second polygon of the head has two corners, and the mirror nothing else."""
    write_photo(root / split / "n01440764" / "n01440764_10040.JPEG")
    line = [1, 1, 5, 5]
    rows = [(0, [[4, 4, 20, 4, 20, 20, 4, 20], line]), (1, [line])]
    annotations = [
        {
            "id": i,
            "image_id": 9,
            "category_id": category,
            "segmentation": polygons,
            **box_of(4, 4, 16, 16),
        }
        for i, (category, polygons) in enumerate(rows)
    ]
    content = {
        "images": [image_row(9, "n01440764_10040.JPEG")],
        "annotations": annotations,
        "categories": PARTIMAGENET_CATEGORIES,
    }
    write_json(root / f"{split}.json", content)


def write_objects365(root, split="train", number=2, more=()):
    """Two objects a photo, then ``more`` annotations."""
    images, annotations = [], []
    for i in range(1, number + 1):
        name = f"patch8/objects365_v2_{i:08d}.jpg"
        write_photo(root / split / name, 50 + i)
        images.append(image_row(i, f"images/v2/{name}", license=5, url=""))
        for category, place in ((1, (3.5, 4.0, 20.25, 30.0)), (3, (30.0, 10.0, 25.5, 20.0))):
            row = {"id": len(annotations) + 1, "image_id": i, "category_id": category}
            annotations.append({**row, **box_of(*place, isfake=0, isreflected=0)})
    content = {
        "images": images,
        "annotations": [*annotations, *more],
        "categories": O365_CATEGORIES,
        "licenses": [],
    }
    write_json(root / "annotations" / f"zhiyuan_objv2_{split}.json", content)
