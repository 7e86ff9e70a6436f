import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semsam.data import DatasetCatalog, MetadataCatalog
from semsam.data.records import decode_annotations
from semsam.utils.file_io import write_json

COCO_ROOT = Path(os.environ.get("SEMSAM_DATA", "../shared/data")) / "coco"
CODE = {"size": [4, 6], "counts": [0, 4, 20]}
POLYGON = [[2, 0, 6, 0, 6, 4, 2, 4]]
CATEGORIES = [
    {"id": 9, "name": "dog", "frequency": "r"},
    {"id": 4, "name": "cat", "frequency": "f"},
]


def write_truth(path, annotations, categories=CATEGORIES, numbers=(1, 2, 3)):
    """Blank photos' objects; the third photo has none, unless they say so."""
    images = [
        {
            "id": n,
            "height": 4,
            "width": 6,
            "file_name": f"{n}.jpg",
            "coco_url": f"http://x/val2017/{n}.jpg",
        }
        for n in numbers
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_json(path, content)


def item(number, image_id, category_id, segmentation=CODE, **more):
    ids = {"id": number, "image_id": image_id, "category_id": category_id}
    return {**ids, "segmentation": segmentation, **more}


OBJECTS = [
    item(1, 1, 9),
    item(2, 1, 4, POLYGON),
    item(3, 1, 4, iscrowd=1),
    item(4, 2, 4, iscrowd=1),
]


def test_objects_are_codes_or_polygons_and_crowds_are_no_objects(tmp_path):
    write_truth(tmp_path / "annotations" / "instances_val2017.json", OBJECTS)
    records = DatasetCatalog.get(f"coco_instances://{tmp_path}?split=val2017")
    assert [record["image_id"] for record in records] == [1, 2, 3]
    assert records[0]["file_name"] == str(tmp_path / "val2017" / "1.jpg")
    truth = decode_annotations(records[0], (4, 6))
    expected = np.zeros((2, 4, 6), dtype=bool)
    expected[0, :, 0] = expected[1, :, 2:] = True
    assert np.array_equal(truth.masks.decode(), expected)
    assert truth.classes.tolist() == [1, 0]
    assert len(decode_annotations(records[1], (4, 6)).masks) == 0


def test_training_leaves_out_photos_without_objects(tmp_path):
    write_truth(tmp_path / "annotations" / "instances_train2017.json", OBJECTS)
    records = DatasetCatalog.get(f"coco_instances://{tmp_path}?split=train2017")
    assert [record["image_id"] for record in records] == [1]


def test_classes_stand_in_the_metadata(tmp_path):
    write_truth(tmp_path / "annotations" / "instances_val2017.json", OBJECTS)
    metadata = MetadataCatalog.get(f"coco_instances://{tmp_path}?split=val2017")
    assert metadata.evaluator_type == "COCOEvaluator"
    assert metadata.thing_classes == ["cat", "dog"]
    assert metadata.thing_dataset_id_to_contiguous_id == {4: 0, 9: 1}
    assert metadata.json_file.endswith("instances_val2017.json")
    assert metadata.get("stuff_classes", "none") == "none"
    with pytest.raises(AttributeError, match="'stuff_classes'"):
        _ = metadata.stuff_classes


def test_what_is_set_by_hand_comes_before_what_is_read(tmp_path):
    write_truth(tmp_path / "annotations" / "instances_val2017.json", OBJECTS)
    metadata = MetadataCatalog.get(f"coco_instances://{tmp_path}/.?split=val2017")
    metadata.set(thing_classes=["kitten", "puppy"])
    assert metadata.thing_dataset_id_to_contiguous_id == {4: 0, 9: 1}
    assert metadata.thing_classes == ["kitten", "puppy"]


def test_metadata_of_data_that_come_later_are_read_then(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMSAM_DATASETS", str(tmp_path))
    metadata = MetadataCatalog.get("seginw_Poles_train")
    with pytest.raises(FileNotFoundError, match="Poles"):
        _ = metadata.thing_classes
    file = tmp_path / "seginw" / "Poles" / "train" / "_annotations_min1cat.coco.json"
    write_truth(file, [], [{"id": 0, "name": "poles"}])
    assert metadata.thing_classes == ["poles"]
    assert metadata.prediction_file == "seginw_Poles_train.json"


def test_lvis_finds_its_photos_in_coco_s_folders_and_says_how_frequent_classes_are(tmp_path):
    write_truth(tmp_path / "lvis" / "lvis_v1_val.json", OBJECTS[:2])
    name = f"lvis://{tmp_path}/lvis?split=v1_val"
    assert DatasetCatalog.get(name)[0]["file_name"] == str(tmp_path / "coco" / "val2017" / "1.jpg")
    moved = DatasetCatalog.get(f"{name}&images={tmp_path}/photos")[0]
    assert moved["file_name"] == str(tmp_path / "photos" / "val2017" / "1.jpg")
    metadata = MetadataCatalog.get(name)
    assert metadata.federated
    assert metadata.category_groups == {"APr": [1], "APc": [], "APf": [0]}
    with pytest.raises(ValueError, match="no split 'val'"):
        DatasetCatalog.get(f"lvis://{tmp_path}/lvis?split=val")


def test_lvis_without_frequencies_is_damage(tmp_path):
    write_truth(tmp_path / "lvis_v1_val.json", [], [{"id": 1, "name": "cat"}])
    with pytest.raises(ValueError, match="category 1 has no 'frequency'"):
        _ = MetadataCatalog.get(f"lvis://{tmp_path}?split=v1_val").thing_classes


def test_seginw_counts_its_classes_from_zero(tmp_path):
    file = tmp_path / "Cows" / "valid" / "_annotations_min1cat.coco.json"
    write_truth(file, [item(0, 1, 0)], [{"id": 0, "name": "cow"}])
    records = DatasetCatalog.get(f"seginw://{tmp_path}/Cows")
    assert records[0]["file_name"] == str(file.parent / "1.jpg")
    assert (
        MetadataCatalog.get(f"seginw://{tmp_path}/Cows").prediction_file == "seginw_Cows_val.json"
    )
    write_truth(file, [], [{"id": 1, "name": "cow"}])
    with pytest.raises(ValueError, match=r"categories are \[1\], not 0 to 0"):
        DatasetCatalog.get(f"seginw://{tmp_path}/Cows")


def test_any_json_is_a_dataset_whose_photos_lie_beside_it_or_where_it_is_said(tmp_path):
    write_truth(tmp_path / "own.json", OBJECTS)
    records = DatasetCatalog.get(f"coco_json://{tmp_path}/own.json")
    assert [record["file_name"] for record in records] == [f"{tmp_path}/{n}.jpg" for n in (1, 2, 3)]
    elsewhere = DatasetCatalog.get(f"coco_json://{tmp_path}/own.json?images=photos")
    assert elsewhere[0]["file_name"] == "photos/1.jpg"
    assert MetadataCatalog.get(f"coco_json://{tmp_path}/own.json").thing_classes == ["cat", "dog"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category_id": 5}, "annotation 1 of the list: ValueError: there is no category 5"),
        ({"image_id": 8}, "annotation 1 of the list: ValueError: there is no image 8"),
    ],
)
def test_a_damaged_row_is_named(tmp_path, change, message):
    file = tmp_path / "annotations" / "instances_val2017.json"
    write_truth(file, [OBJECTS[0], {**OBJECTS[1], **change}])
    with pytest.raises(ValueError, match=f"instances_val2017.json': {message}"):
        DatasetCatalog.get(f"coco_instances://{tmp_path}")


def test_panoptic_metadata_number_things_and_stuff_together(tmp_path):
    categories = [{"id": 1, "name": "dog", "isthing": 1}, {"id": 92, "name": "sky", "isthing": 0}]
    write_truth(tmp_path / "annotations" / "panoptic_val2017.json", [], categories)
    metadata = MetadataCatalog.get(f"coco_panoptic_seg://{tmp_path}?split=val2017")
    assert metadata.stuff_classes == metadata.thing_classes == ["dog", "sky"]
    assert metadata.thing_dataset_id_to_contiguous_id == {1: 0}
    assert metadata.stuff_dataset_id_to_contiguous_id == {92: 1}


@pytest.mark.skipif(not COCO_ROOT.is_dir(), reason=f"no COCO in {COCO_ROOT}; see SEMSAM_DATA")
def test_the_names_of_coco_lead_to_real_photos(monkeypatch):
    monkeypatch.setenv("SEMSAM_DATASETS", str(COCO_ROOT.parent))
    for split in ("train", "val"):
        things = MetadataCatalog.get(f"coco_2017_{split}_instances")
        everything = MetadataCatalog.get(f"coco_2017_{split}_panoptic")
        assert len(things.thing_classes) == 80
        assert len(everything.stuff_classes) == 133
        numbers = everything.thing_dataset_id_to_contiguous_id
        assert numbers == things.thing_dataset_id_to_contiguous_id
    records = DatasetCatalog.get("coco_2017_val_instances")
    assert len(records) == 100
    with Image.open(records[0]["file_name"]) as image:
        size = image.size[::-1]
    assert len(decode_annotations(records[0], size).masks) > 0
    assert len(DatasetCatalog.get("coco_2017_train_panoptic")) == 100
