import os
from pathlib import Path

import numpy as np
import pytest

from semsam.config import get_cfg
from semsam.data import DatasetCatalog
from semsam.data.datasets.region_classes import load_coco_classes, load_objects365, load_v3det
from semsam.data.mappers import CaptionMapper
from tests.data.region_files import make_object, write_coco_json

COCO_ROOT = Path(os.environ.get("SEMSAM_DATA", "../shared/data")) / "coco"


def test_the_caption_of_a_region_is_the_name_of_its_category(tmp_path):
    objects = [make_object(11), make_object(12, category_id=7, segmentation=[[1, 2, 3, 4]])]
    write_coco_json(tmp_path / "annotations/instances_val2017.json", ["a.jpg"], objects)
    (record,) = load_coco_classes(tmp_path)
    assert record["file_name"] == str(tmp_path / "val2017" / "a.jpg")
    assert [region["phrases"] for region in record["regions"]] == [["cat"], ["sofa"]]
    assert record["regions"][0]["bbox"] == [1.0, 2.0, 11.0, 22.5]
    assert record["regions"][1]["segmentation"] == [[1, 2, 3, 4]]


def test_images_without_objects_and_crowds_are_left_out(tmp_path):
    objects = [make_object(11), make_object(12, iscrowd=1), make_object(13, image_id=3, iscrowd=1)]
    names = ["a.jpg", "b.jpg", "c.jpg"]
    write_coco_json(tmp_path / "annotations/instances_val2017.json", names, objects)
    records = load_coco_classes(tmp_path)
    assert [[r["region_id"] for r in record["regions"]] for record in records] == [[11]]
    assert records.num_bad == 0


def test_objects_of_unknown_images_or_categories_are_counted_as_bad(tmp_path):
    objects = [make_object(11), make_object(12, image_id=8), make_object(13, category_id=2)]
    write_coco_json(tmp_path / "annotations/instances_val2017.json", ["a.jpg"], objects)
    assert load_coco_classes(tmp_path).num_bad == 2


@pytest.mark.parametrize("name", ["images/v1/patch8/x.jpg", "patch8/x.jpg"])
def test_photos_of_objects365_lie_in_their_patch(tmp_path, name):
    write_coco_json(tmp_path / "annotations/zhiyuan_objv2_val.json", [name], [make_object(1)])
    (record,) = load_objects365(tmp_path)
    assert record["file_name"] == str(tmp_path / "val" / "patch8" / "x.jpg")


def test_photos_of_v3det_lie_where_the_json_says(tmp_path):
    names = ["images/a00000066/x.jpg"]
    write_coco_json(tmp_path / "annotations/v3det_2023_v1_train.json", names, [make_object(1)])
    (record,) = load_v3det(tmp_path, "train")
    assert record["file_name"] == str(tmp_path / "images" / "a00000066" / "x.jpg")


@pytest.mark.parametrize("scheme", ["coco_classes", "objects365", "v3det"])
def test_a_missing_json_is_named(tmp_path, scheme):
    with pytest.raises(FileNotFoundError, match=r"annotations/\w+_odd\.json' is missing"):
        DatasetCatalog.get(f"{scheme}://{tmp_path}?split=odd")


def test_a_json_without_categories_is_an_error_that_names_them(tmp_path):
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.write_text('{"images": [], "annotations": []}')
    with pytest.raises(ValueError, match=r"instances_val2017\.json' has no 'categories'"):
        load_coco_classes(tmp_path)


@pytest.mark.skipif(not COCO_ROOT.is_dir(), reason=f"no COCO in {COCO_ROOT}; see SEMSAM_DATA")
def test_real_images_map_with_the_names_of_their_objects():
    cfg = get_cfg()
    cfg.MODEL.CRITERION.NAME = ""
    cfg.INPUT.IMAGE_SIZE, cfg.INPUT.MIN_SCALE, cfg.INPUT.MAX_SCALE = 128, 0.1, 2.0
    records = load_coco_classes(COCO_ROOT)
    assert len(records) > 90
    assert records.num_bad == 0
    for number in range(5):
        known = {region["phrases"][0] for region in records[number]["regions"]}
        sample = {**records[number], "rng": np.random.default_rng(number)}
        instances = CaptionMapper(cfg, is_train=True)(sample)["instances"]
        assert set(instances.gt_captions) <= known
        assert (instances.gt_boxes.area() > 0).all()
        evaluated = CaptionMapper(cfg, is_train=False)(records[number])
        assert evaluated["references"] == [r["phrases"] for r in records[number]["regions"]]
