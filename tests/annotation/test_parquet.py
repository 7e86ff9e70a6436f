import json

import pytest

from semsam.annotation.coco_export import export_coco
from semsam.annotation.engine import AnnotationEngine
from semsam.annotation.mask_sources import Sa1bMasks
from semsam.annotation.output import read_results
from semsam.annotation.parquet import PackedResults, pack_results
from semsam.data.records import BadRecordError

from .colour_labeler import ColourLabeler
from .photos import write_photo, write_photos

pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def images(tmp_path):
    return write_photos(tmp_path / "images", 5)


@pytest.fixture
def annotate(images):
    def call(output, parquet=True, resume=True):
        engine = AnnotationEngine(Sa1bMasks(images), [ColourLabeler()], device="cpu")
        engine.run(output, resume=resume, parquet=parquet)
        return engine.labelers["ColourLabeler"].batches

    return call


@pytest.fixture
def jsons(annotate, tmp_path):
    """The results as files."""
    annotate(tmp_path / "jsons", parquet=False)
    return {path.name: path.read_bytes() for path in (tmp_path / "jsons").glob("photo_*")}


def content(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder):
    files = sorted(folder.glob("*.parquet"))
    return {row["name"]: row for path in files for row in pq.read_table(path).to_pylist()}


def test_a_row_is_the_json_with_columns_to_search_in(annotate, jsons, tmp_path):
    annotate(tmp_path / "out")
    assert set(content(tmp_path / "out")) == {
        "journal.jsonl",
        "manifest.json",
        "results-00000.parquet",
    }
    found = rows(tmp_path / "out")
    assert {f"{n}_semantic.json": row["result"].encode() for n, row in found.items()} == jsons
    row = found["photo_2"]
    assert (row["file_name"], row["height"], row["width"]) == ("photo_2.png", 48, 64)
    assert (row["masks"], row["labelled"], row["bytes"]) == (3, 3, len(row["result"]))
    names = [region["class_name"] for region in json.loads(row["result"])["annotations"]]
    assert row["class_name"] == names


def test_a_packed_photo_is_finished_and_read_like_a_json(annotate, jsons, tmp_path):
    annotate(tmp_path / "out")
    assert annotate(tmp_path / "out") == []
    read = {line["name"]: result for line, result in read_results(tmp_path / "out")}
    assert {f"{n}_semantic.json": json.dumps(r).encode() for n, r in read.items()} == jsons
    for folder in ("out", "jsons"):
        export_coco(tmp_path / folder, tmp_path / f"{folder}.json")
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "jsons.json").read_bytes()


def test_a_photo_that_changed_takes_its_old_rows_place(annotate, images, tmp_path):
    annotate(tmp_path / "out")
    before = rows(tmp_path / "out")
    write_photo(images, "photo_1", number=4, seed=9)
    assert len(annotate(tmp_path / "out", parquet=False)) == 1
    after = rows(tmp_path / "out")
    tables = [pq.read_table(path) for path in sorted((tmp_path / "out").glob("*.parquet"))]
    assert [len(table) for table in tables] == [4, 1]
    assert after["photo_1"]["masks"] == 4
    del before["photo_1"], after["photo_1"]
    assert after == before


def test_a_row_of_a_photo_that_failed_since_is_dropped(annotate, images, tmp_path):
    annotate(tmp_path / "out")
    (images / "photo_1.png").write_bytes(b"damaged")
    annotate(tmp_path / "out")
    assert set(rows(tmp_path / "out")) == {f"photo_{i}" for i in (0, 2, 3, 4)}


def test_packing_that_was_stopped_is_finished_with_the_same_files(annotate, tmp_path, monkeypatch):
    monkeypatch.setattr("semsam.annotation.parquet.ROWS_PER_FILE", 2)
    annotate(tmp_path / "whole")
    annotate(tmp_path / "out", parquet=False)
    loose = content(tmp_path / "out")
    annotate(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").glob("*.parquet")) == [
        f"results-0000{i}.parquet" for i in range(3)
    ]
    # As it is left between the second file and the removal of its jsons.
    (tmp_path / "out" / "results-00002.parquet").unlink()
    for name in ("photo_3_semantic.json", "photo_4_semantic.json"):
        (tmp_path / "out" / name).write_bytes(loose[name])
    assert annotate(tmp_path / "out") == []
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_doing_everything_anew_leaves_no_old_row(annotate, images, tmp_path):
    annotate(tmp_path / "out")
    for path in images.glob("photo_4*"):
        path.unlink()
    annotate(tmp_path / "out", resume=False)
    assert set(rows(tmp_path / "out")) == {f"photo_{i}" for i in range(4)}


def test_a_damaged_file_is_named(annotate, tmp_path):
    annotate(tmp_path / "out")
    path = tmp_path / "out" / "results-00000.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadRecordError, match=r"results-00000\.parquet"):
        PackedResults(tmp_path / "out")


def test_a_folder_without_results_has_nothing_to_pack(tmp_path):
    pack_results(tmp_path, {})
    assert list(tmp_path.iterdir()) == []
