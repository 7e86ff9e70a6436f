import numpy as np
import pytest

from semsam.data import DatasetCatalog, MetadataCatalog
from semsam.data.records import LazyImage, decode_annotations
from semsam.data.vocabulary import read_names
from semsam.utils.file_io import write_json
from tests.data.joint_files import (
    PACO_CATEGORIES,
    SIZE,
    write_paco,
    write_partimagenet,
    write_pascal_part,
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMSAM_DATASETS", str(tmp_path))
    write_paco(tmp_path / "paco", tmp_path / "coco")
    write_pascal_part(tmp_path / "pascal_part")
    write_partimagenet(tmp_path / "partimagenet")
    return tmp_path


def metadata_of(root, folder, scheme):
    """By path: a registered name's metadata are read once a process."""
    return MetadataCatalog.get(f"{scheme}://{root}/{folder}?split=train")


def test_the_registered_names_lead_to_photos_and_masks(root):
    for name, number in (("paco_train", 2), ("pascal_part_train", 1), ("partimagenet_train", 1)):
        records = DatasetCatalog.get(name)
        assert len(records) == number
        assert LazyImage(records[0]).size == SIZE
        assert len(decode_annotations(records[0], SIZE).masks) > 0
        assert MetadataCatalog.get(name).vocabulary == name.removesuffix("_train")


def test_wholes_and_parts_of_paco_share_a_numbering_by_rising_id(root):
    metadata = metadata_of(root, "paco", "paco")
    names = ["dog", "car_(automobile)", "dog:head", "car_(automobile):wheel"]
    assert metadata.thing_classes == names
    assert metadata.is_part == [False, False, True, True]
    assert metadata.category_groups == {"AP parts": [2, 3], "AP wholes": [0, 1]}
    assert metadata.federated
    assert read_names(f"paco://{root}/paco?split=train") == names
    (record, _) = DatasetCatalog.get("paco_train")
    assert decode_annotations(record, SIZE).classes.tolist() == [0, 2, 1, 3]


def test_an_object_that_paco_knows_by_its_box_alone_is_left_out(root):
    (record, _) = DatasetCatalog.get("paco_train")
    assert len(record["annotations"]) == 4


def test_pascal_part_has_no_wholes(root):
    metadata = metadata_of(root, "pascal_part", "pascal_part")
    assert metadata.thing_classes == ["dog:head", "bus:license plate"]
    assert metadata.category_groups == {"AP parts": [0, 1]}


def test_parts_of_partimagenet_are_called_by_their_super_category(root):
    metadata = metadata_of(root, "partimagenet", "partimagenet")
    assert metadata.thing_classes == ["Quadruped:Head", "Car:Side Mirror"]
    assert metadata.is_part == [True, True]


def test_polygons_without_area_and_objects_of_such_alone_are_left_out(root):
    (record,) = DatasetCatalog.get("partimagenet_train")
    assert "train/n01440764/n01440764_10040.JPEG" in record["file_name"]
    truth = decode_annotations(record, SIZE)
    assert truth.classes.tolist() == [0]
    assert np.array_equal(truth.masks.boxes, [[4, 4, 20, 20]])


def test_any_json_in_this_form_is_a_dataset_of_parts(root):
    name = f"parts://{root}/paco/annotations/paco_lvis_v1_train.json?images={root}/coco"
    assert LazyImage(DatasetCatalog.get(name)[0]).size == SIZE
    assert MetadataCatalog.get(name).vocabulary == "parts"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: {"name": "head"}}, "category 90 is a part, but called 'head', not 'whole:part'"),
        ({1: {"name": ":head"}}, "category 90 is a part, but called ':head'"),
        ({1: {"name": "cat:head"}}, "category 90 'cat:head' is a part of 'cat', which is no categ"),
        (
            {1: {"name": "a", "supercategory": ""}, 3: {"name": "b", "supercategory": ""}},
            "no categ",
        ),
    ],
)
def test_a_part_without_its_whole_is_named(tmp_path, change, message):
    rows = [{**row, **change.get(i, {})} for i, row in enumerate(PACO_CATEGORIES)]
    write_paco(tmp_path / "paco", tmp_path / "coco", categories=rows)
    for read in (DatasetCatalog.get, DatasetCatalog.describe):
        with pytest.raises(ValueError, match=r"paco_lvis_v1_train\.json': " + message):
            read(f"paco://{tmp_path}/paco?split=train")


def test_an_unknown_class_and_an_unknown_split_are_named(tmp_path):
    write_pascal_part(tmp_path)
    content = {"images": [], "categories": [{"id": 1, "name": "dog:head"}]}
    row = {"image_id": 1, "category_id": 7, "segmentation": []}
    write_json(tmp_path / "train.json", {**content, "annotations": [row]})
    with pytest.raises(ValueError, match=r"train\.json': annotation 0 of .* no category 7"):
        DatasetCatalog.get(f"pascal_part://{tmp_path}?split=train")
    with pytest.raises(ValueError, match="has no split 'odd'; it has: train, val, test"):
        DatasetCatalog.get(f"pascal_part://{tmp_path}?split=odd")
