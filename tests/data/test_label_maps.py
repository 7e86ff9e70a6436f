import json

import pytest

from semsam.data.label_maps import label_map


def test_tables_have_the_classes_of_their_datasets():
    sizes = {"ade20k": 150, "camvid": 11, "cityscapes": 19, "coco": 80, "coco_panoptic": 133}
    assert {name: len(label_map(name)) for name in sizes} == sizes
    assert label_map("foggy_driving") == label_map("cityscapes")
    assert label_map("ade20k")[89] == "television receiver"
    assert label_map("cityscapes")[0] == "road"
    assert label_map("coco")[79] == "toothbrush"


def test_no_name_has_a_blank_at_its_ends():
    for name in ("ade20k", "camvid", "cityscapes", "coco_panoptic", "coco_panoptic_refined"):
        assert all(value == value.strip() for value in label_map(name).values())


def test_refined_coco_names_read_as_words_except_kinds_of_floor_wall_and_window():
    raw, refined = label_map("coco_panoptic"), label_map("coco_panoptic_refined")
    changed = {i: name for i, name in refined.items() if name != raw[i]}
    assert sorted(changed) == [86, 93, 112, 113, 115, *range(116, 133)]
    assert (changed[86], changed[119], changed[129], changed[132]) == (
        "door",
        "sky",
        "building",
        "rug",
    )
    assert [refined[i] for i in (87, 109, 114)] == ["floor-wood", "wall-brick", "window-blind"]


@pytest.mark.parametrize("content", [["cat", "dog"], {"0": "cat", "1": "dog"}])
def test_a_file_may_be_a_list_of_names_or_a_dict_from_id_to_name(tmp_path, content):
    path = tmp_path / "names.json"
    path.write_text(json.dumps(content))
    assert label_map(str(path)) == {0: "cat", 1: "dog"}


@pytest.mark.parametrize("content", ["{", "[]", "3", '{"one": "cat"}', '["cat", 2]', '["cat", ""]'])
def test_a_file_without_names_is_an_error_that_names_it(tmp_path, content):
    path = tmp_path / "names.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"names\.json"):
        label_map(str(path))


def test_an_unknown_table_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"did you mean 'ade20k'.*cityscapes"):
        label_map("ade20")
    with pytest.raises(FileNotFoundError, match=r"absent\.json"):
        label_map("absent.json")
