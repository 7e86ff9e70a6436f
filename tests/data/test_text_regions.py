import base64
import json

import numpy as np
import pytest

from semsam.data.datasets.text_regions import (
    TextRegionsTsv,
    decode_embeddings,
    encode_embeddings,
    text_region_row,
)
from semsam.data.datasets.tsv import write_tsv
from semsam.data.records import BadRecordError
from tests.data.text_region_files import jpg, make_result


def test_a_row_is_read_as_it_was_written(tmp_path):
    result = make_result()
    write_tsv(tmp_path / "s.tsv", [text_region_row("a/b", jpg(), result)])
    records = TextRegionsTsv(tmp_path)
    record = records[0]
    assert len(records) == 1
    assert (record["image_id"], record["height"], record["width"]) == ("a/b", 48, 64)
    assert [region["phrases"] for region in record["regions"]] == [["dog"], ["tree"], ["dog"]]
    assert record["regions"][1]["bbox"] == [3.5, 3.0, 13.5, 15.25]
    vectors = decode_embeddings(result["text_embeddings"])
    np.testing.assert_array_equal(record["text_embeddings"], vectors[[0, 1, 0]])
    np.testing.assert_array_equal(record["caption_embeddings"], vectors[[2, 1]])
    assert record["encoder"] == "clip"


def test_embeddings_survive_half_the_precision():
    vectors = np.random.default_rng(1).normal(size=(5, 768)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    again = decode_embeddings(json.loads(json.dumps(encode_embeddings(vectors))))
    assert again.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(again, axis=1), 1, atol=1e-6)
    assert (again * vectors).sum(axis=1).min() > 0.999999


def test_the_size_of_a_turned_photo_is_that_of_the_upright_one():
    row = text_region_row("p", jpg(48, 64, turned=True), make_result())
    content = json.loads(row[1])
    assert (content["height"], content["width"]) == (48, 64)
    assert base64.b64decode(row[2]) == jpg(48, 64, turned=True)


def damage_boxes(result):
    result["annotations"] = []


def damage_place(result):
    result["annotations"][0]["bbox"] = [100.0, 3.0, 5.0, 5.0]


def damage_number(result):
    result["annotations"][0]["text_embedding"] = 7


def damage_caption(result):
    result["captions"].append("never encoded")


def damage_texts(result):
    result["text_embeddings"]["texts"].append("one more")


def damage_code(result):
    result["text_embeddings"]["float16"] += "!"


def damage_values(result):
    result["text_embeddings"] |= encode_embeddings(np.full((3, 8), np.nan))


def damage_table(result):
    del result["text_embeddings"]


DAMAGES = {
    damage_boxes: "no box",
    damage_place: "region 0",
    damage_number: "IndexError",
    damage_caption: "KeyError: 'never encoded'",
    damage_texts: "3 embeddings for 4 texts",
    damage_code: "Error",
    damage_values: "zero or not finite",
    damage_table: "KeyError: 'text_embeddings'",
}


@pytest.mark.parametrize(
    ("damage", "reason"), DAMAGES.items(), ids=lambda d: getattr(d, "__name__", "")
)
def test_a_damaged_result_is_no_row_and_the_message_names_the_photo(damage, reason):
    result = make_result()
    damage(result)
    with pytest.raises(BadRecordError, match=f"^photo_7: .*{reason}"):
        text_region_row("photo_7", jpg(), result)


@pytest.mark.parametrize("mark", "\t\n\r")
def test_a_name_that_would_end_a_column_is_no_row(mark):
    with pytest.raises(BadRecordError, match="no tab or line break"):
        text_region_row(f"a{mark}b", jpg(), make_result())


def test_a_photo_that_is_no_image_is_no_row():
    with pytest.raises(BadRecordError, match="photo_7"):
        text_region_row("photo_7", b"no image", make_result())


def test_a_damaged_row_is_bad_for_itself(tmp_path):
    row = text_region_row("p", jpg(), make_result())
    content = json.loads(row[1])
    content["text_embeddings"]["dim"] = 7
    write_tsv(tmp_path / "s.tsv", [row, [b"q", json.dumps(content).encode(), row[2]]])
    records = TextRegionsTsv(tmp_path)
    assert records[0]["image_id"] == "p"
    with pytest.raises(BadRecordError, match=r"s\.tsv:1: ValueError"):
        records[1]
