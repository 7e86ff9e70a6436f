import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from semsam.data.datasets.panoptic import load_coco_panoptic
from semsam.data.records import BadRecordError, decode_annotations
from semsam.utils.file_io import write_json

COCO_ROOT = Path(os.environ.get("SEMSAM_DATA", "../shared/data")) / "coco"


def write_coco(root, labels, segments):
    """One image in COCO's panoptic layout."""
    colours = np.stack([labels % 256, labels // 256 % 256, labels // 65536], axis=2)
    (root / "panoptic_val2017").mkdir(parents=True)
    (root / "val2017").mkdir()
    Image.fromarray(colours.astype(np.uint8)).save(root / "panoptic_val2017" / "7.png")
    Image.fromarray(np.zeros((*labels.shape, 3), np.uint8)).save(root / "val2017" / "7.jpg")
    content = {
        "images": [{"id": 7, "file_name": "7.jpg"}],
        "annotations": [{"image_id": 7, "file_name": "7.png", "segments_info": segments}],
        "categories": [{"id": 1}, {"id": 90}, {"id": 200}],
    }
    write_json(root / "annotations" / "panoptic_val2017.json", content)


def test_segments_become_masks_and_crowds_are_left_out(tmp_path):
    labels = np.array([[0, 70000, 70000], [300, 300, 9]])
    segments = [
        {"id": 70000, "category_id": 200, "iscrowd": 0},
        {"id": 300, "category_id": 1, "iscrowd": 0},
        {"id": 9, "category_id": 1, "iscrowd": 1},
    ]
    write_coco(tmp_path, labels, segments)
    (record,) = load_coco_panoptic(tmp_path, "val2017")
    annotations = decode_annotations(record, (2, 3))
    assert np.array_equal(annotations.masks.decode(), np.stack([labels == 70000, labels == 300]))
    assert annotations.classes.tolist() == [2, 0]
    assert annotations.clicks is None
    with pytest.raises(BadRecordError, match=r"7\.jpg"):
        decode_annotations(record, (3, 2))


def test_a_segment_without_a_pixel_is_damage(tmp_path):
    write_coco(tmp_path, np.ones((2, 2), int), [{"id": 5, "category_id": 1, "iscrowd": 0}])
    with pytest.raises(BadRecordError, match=r"\[5\]"):
        decode_annotations(load_coco_panoptic(tmp_path)[0], (2, 2))


def test_a_missing_folder_is_named(tmp_path):
    write_coco(tmp_path, np.ones((2, 2), int), [])
    with pytest.raises(FileNotFoundError, match="panoptic_train2017"):
        load_coco_panoptic(tmp_path, "train2017")


@pytest.mark.skipif(not COCO_ROOT.is_dir(), reason=f"no COCO in {COCO_ROOT}; see SEMSAM_DATA")
def test_masks_of_real_images_are_those_of_the_instances_file():
    instances = COCO(COCO_ROOT / "annotations" / "instances_val2017.json")
    records = load_coco_panoptic(COCO_ROOT, "val2017")
    assert len(records) == 100
    for record in records[:5]:
        with Image.open(record["file_name"]) as image:
            size = image.size[::-1]
        masks = decode_annotations(record, size).masks.decode()
        for annotation in instances.imgToAnns[record["image_id"]]:
            if not annotation["iscrowd"]:
                assert (masks == instances.annToMask(annotation).astype(bool)).all((1, 2)).any()
