import json
import os
from pathlib import Path

import pytest

from semsam.data import MetadataCatalog
from semsam.data.vocabulary import read_names, read_vocabulary

COCO_ROOT = Path(os.environ.get("SEMSAM_DATA", "../shared/data")) / "coco"


def test_lines_of_a_text_file_are_names(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\ufeffdog\n\n fire hydrant \ncaf\u00e9\n", encoding="utf-8")
    assert read_names(str(path)) == ["dog", "fire hydrant", "caf\u00e9"]


@pytest.mark.parametrize(
    "content",
    [
        ["cat", "dog"],
        {"0": "cat", "1": "dog"},
        {"categories": [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}], "images": []},
    ],
)
def test_a_json_file_is_a_list_a_dict_or_the_categories_of_coco(tmp_path, content):
    path = tmp_path / "names.json"
    path.write_text(json.dumps(content))
    assert read_names(str(path)) == ["cat", "dog"]


def test_a_table_of_a_dataset_has_a_name():
    assert len(read_names("ade20k")) == 150
    with pytest.raises(ValueError, match="did you mean 'ade20k'"):
        read_names("ade2k")


@pytest.mark.parametrize("text", ["{", '{"categories": [{"id": 1}]}', '["a", 1]'])
def test_a_file_of_anything_else_is_named(tmp_path, text):
    path = tmp_path / "names.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"names\.json"):
        read_names(str(path))


def test_a_vocabulary_without_a_name_is_rejected():
    with pytest.raises(ValueError, match="no name"):
        read_vocabulary([])


def test_a_missing_vocabulary_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        read_vocabulary(["nowhere.txt"])


def test_a_dataset_is_a_list_of_its_classes():
    assert len(read_names("ade20k_val")) == 150
    with pytest.raises(ValueError, match="'sa1b_tsv_train' has no classes"):
        read_names("sa1b_tsv_train")


def test_names_of_files_stand_among_names_but_those_of_a_classifier_do_not(tmp_path):
    path = tmp_path / "names.json"
    path.write_text('["cat", "dog"]')
    assert read_vocabulary(["sky", str(path), "cat"]) == ["sky", "cat", "dog"]
    with pytest.raises(ValueError, match=r"'coco\.safetensors' .* stands alone"):
        read_vocabulary(["sky", "coco.safetensors"])


@pytest.mark.parametrize("table", ["ade20k", "camvid", "cityscapes"])
def test_a_table_has_the_classes_of_its_data_set_in_their_order(table):
    assert read_names(table) == list(MetadataCatalog.get(f"{table}_val").stuff_classes)


@pytest.mark.parametrize(
    ("table", "scheme", "key"),
    [
        ("coco", "coco_instances", "thing_classes"),
        ("coco_panoptic", "coco_panoptic_seg", "stuff_classes"),
    ],
)
def test_tables_of_coco_have_the_classes_of_its_files_in_their_order(table, scheme, key):
    if not COCO_ROOT.is_dir():
        pytest.skip(f"no COCO in {COCO_ROOT}; see SEMSAM_DATA")
    metadata = MetadataCatalog.get(f"{scheme}://{COCO_ROOT}?split=val2017")
    assert read_names(table) == list(metadata.get(key))
