import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from semsam.data import DatasetCatalog, MetadataCatalog
from semsam.data.datasets.panoptic import load_coco_panoptic
from semsam.data.label_maps import label_map
from semsam.data.records import BadRecordError, decode_annotations
from semsam.utils.file_io import write_json
from tests.data.joint_files import SIZE, write_ade20k

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


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        ({"id": 1, "category_id": 5}, "annotation 0 of the list: ValueError: there is no category"),
        ({"id": 1}, "annotation 0 of the list: KeyError: 'category_id'"),
    ],
)
def test_a_damaged_segment_is_named_with_file_and_row(tmp_path, segment, message):
    write_coco(tmp_path, np.ones((2, 2), int), [segment])
    with pytest.raises(ValueError, match=f"panoptic_val2017.json': {message}"):
        load_coco_panoptic(tmp_path)


def test_ade20k_is_read_as_mask2former_s_scripts_leave_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMSAM_DATASETS", str(tmp_path))
    write_ade20k(tmp_path / "ADEChallengeData2016")
    first, second = DatasetCatalog.get("ade20k_panoptic_train")
    assert second["image_id"] == "ADE_train_00000002"
    truth = decode_annotations(first, SIZE)
    assert truth.classes.tolist() == [0, 1, 1, 2]
    assert truth.masks.areas.tolist() == [64 * 20, 20 * 20, 30 * 20, 64 * 4]
    metadata = MetadataCatalog.get("ade20k_panoptic_train")
    assert metadata.stuff_classes == metadata.thing_classes == ["wall", "bed", "window"]
    assert metadata.thing_dataset_id_to_contiguous_id == {1: 1}
    assert metadata.stuff_dataset_id_to_contiguous_id == {0: 0, 2: 2}
    assert metadata.vocabulary == "ade20k"
    assert len(label_map(metadata.vocabulary)) == 150


def test_a_missing_png_of_ade20k_is_a_bad_row_that_names_it(tmp_path):
    write_ade20k(tmp_path)
    first, second = DatasetCatalog.get(f"ade20k_panoptic://{tmp_path}?split=train")
    missing = tmp_path / "ade20k_panoptic_train" / "ADE_train_00000001.png"
    missing.unlink()
    with pytest.raises(BadRecordError, match=str(missing)):
        decode_annotations(first, SIZE)
    assert len(decode_annotations(second, SIZE).masks) == 4
    with pytest.raises(FileNotFoundError, match=r"ade20k_panoptic_val\.json' is missing"):
        DatasetCatalog.get(f"ade20k_panoptic://{tmp_path}")
    with pytest.raises(ValueError, match="has no split 'test'; it has: train, val"):
        DatasetCatalog.get(f"ade20k_panoptic://{tmp_path}?split=test")


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
