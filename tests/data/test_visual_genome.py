import json
import logging

import pytest

from semsam.data import DatasetCatalog, MetadataCatalog
from semsam.data.datasets.visual_genome import load_visual_genome
from semsam.data.records import BadRecordError, decode_regions
from tests.data.region_files import SIZE, vg_region, write_json, write_visual_genome

REGIONS = {
    1: [vg_region(10)],
    2: [vg_region(20, " The Dog. "), vg_region(21, "cat", x=0, y=0, width=60, height=40)],
    3: [vg_region(900100184613)],
}


def test_a_split_has_its_images_with_raw_captions_and_corner_boxes(tmp_path):
    root = write_visual_genome(tmp_path, REGIONS)
    first, second = load_visual_genome(root, "test")
    assert first == {
        "file_name": str(root / "VG_100K_2" / "2.jpg"),
        "image_id": 2,
        "height": SIZE[0],
        "width": SIZE[1],
        "regions": [
            {"region_id": 20, "bbox": [4.0, 5.0, 24.0, 15.0], "phrases": [" The Dog. "]},
            {"region_id": 21, "bbox": [0.0, 0.0, 60.0, 40.0], "phrases": ["cat"]},
        ],
    }
    assert second["regions"][0]["region_id"] == 900100184613
    assert [r["image_id"] for r in load_visual_genome(root, "train")] == [1]


def test_a_url_names_root_and_split_and_leads_to_the_caption_mapper(tmp_path):
    root = write_visual_genome(tmp_path, REGIONS)
    name = f"visual_genome://{root}?split=test"
    assert len(DatasetCatalog.get(name)) == 2
    assert MetadataCatalog.get(name).mapper == "CaptionMapper"


def test_the_cleaned_captions_of_grit_have_the_photos_of_visual_genome(tmp_path):
    root = write_visual_genome(tmp_path, REGIONS)
    row = {"id": 7, "image_id": 3, "bbox": [1, 2, 3, 4], "caption": "a dog"}
    write_json(root / "grit" / "test.json", {"images": [], "annotations": [row]})
    (record,) = load_visual_genome(root, "test", annotations="grit")
    assert record["file_name"] == str(root / "VG_100K" / "3.jpg")
    assert record["regions"] == [
        {"region_id": 7, "bbox": [1.0, 2.0, 4.0, 6.0], "phrases": ["a dog"]}
    ]
    with pytest.raises(ValueError, match=r"no split 'val'; it has: train, test"):
        load_visual_genome(root, "val", annotations="grit")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"width": 0}, "no area"),
        ({"x": 61}, "no area"),
        ({"y": float("nan")}, "finite"),
        ({"x": None}, "TypeError"),
        ({"phrase": "  "}, "phrases"),
        ({"phrase": None}, "phrases"),
    ],
)
def test_a_bad_region_is_left_out_and_counted(tmp_path, caplog, damage, reason):
    regions = {2: [{**vg_region(20), **damage}, vg_region(21)]}
    with caplog.at_level(logging.WARNING):
        records = load_visual_genome(write_visual_genome(tmp_path, regions), "test")
    assert [region["region_id"] for region in records[0]["regions"]] == [21]
    assert records.num_bad == 1
    assert "1 of 2 regions left out" in caplog.text
    assert reason in caplog.text


def test_a_region_without_a_key_is_a_bad_region(tmp_path):
    incomplete = vg_region(20)
    del incomplete["phrase"]
    root = write_visual_genome(tmp_path, {2: [incomplete, vg_region(21)]})
    assert load_visual_genome(root, "test").num_bad == 1


def test_an_image_of_bad_regions_alone_is_a_bad_row(tmp_path):
    regions = {2: [vg_region(20, width=0)], 3: [vg_region(30)]}
    records = load_visual_genome(write_visual_genome(tmp_path, regions), "test")
    assert [len(record["regions"]) for record in records] == [0, 1]
    with pytest.raises(BadRecordError, match=r"2\.jpg.*no usable region"):
        decode_regions(records[0], SIZE)


def test_a_split_of_bad_regions_alone_is_an_error_that_says_why(tmp_path):
    root = write_visual_genome(tmp_path, {2: [vg_region(20, width=-1)]})
    with pytest.raises(ValueError, match=r"region_descriptions\.json': row 0.*region 20.*no area"):
        load_visual_genome(root, "test")


def test_an_unknown_split_or_form_is_answered_with_what_there_is(tmp_path):
    root = write_visual_genome(tmp_path, REGIONS)
    with pytest.raises(ValueError, match=r"no split 'minival'; it has: train, val, test"):
        load_visual_genome(root, "minival")
    with pytest.raises(ValueError, match=r"no annotations 'raw'; it has: densecap, grit"):
        load_visual_genome(root, annotations="raw")


@pytest.mark.parametrize("name", ["image_data", "region_descriptions", "densecap_splits"])
def test_a_missing_or_damaged_json_is_named(tmp_path, name):
    path = write_visual_genome(tmp_path, REGIONS) / f"{name}.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=rf"{name}\.json' is not json"):
        load_visual_genome(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name}\.json"):
        load_visual_genome(tmp_path)


def test_an_image_without_a_size_is_named_by_its_place(tmp_path):
    root = write_visual_genome(tmp_path, REGIONS)
    images = json.loads((root / "image_data.json").read_text())
    del images[1]["height"]
    write_json(root / "image_data.json", images)
    with pytest.raises(ValueError, match=r"image_data\.json': image 1 .*height"):
        load_visual_genome(root)


def test_an_image_of_the_regions_may_be_named_as_the_documentation_does(tmp_path):
    root = write_visual_genome(tmp_path, REGIONS)
    entries = [{"image_id": 2, "regions": REGIONS[2]}]
    write_json(root / "region_descriptions.json", entries)
    assert [record["image_id"] for record in load_visual_genome(root)] == [2]
    write_json(root / "region_descriptions.json", [{"regions": []}])
    with pytest.raises(ValueError, match="entry 0 has no 'id'"):
        load_visual_genome(root)
