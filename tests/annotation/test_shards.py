import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from semsam.annotation.engine import AnnotationEngine
from semsam.annotation.mask_models import GeneratedMasks
from semsam.annotation.mask_sources import ImageFiles, Sa1bMasks
from semsam.annotation.plan import describe_plan
from semsam.annotation.report import write_review_sheet
from semsam.annotation.shards import TsvMasks, TsvPhotos, open_photos
from semsam.data.datasets.tsv import write_tsv
from semsam.data.records import BadRecordError
from semsam.inference import AutomaticMaskGenerator
from semsam.modeling import build_model
from tests.data.shard_files import write_list

from ..tiny import perturb, tiny_sam_cfg
from .colour_labeler import ColourLabeler
from .photos import pack_photos, row_of, write_labels, write_photo, write_photos


@pytest.fixture
def images(tmp_path):
    return write_photos(tmp_path / "images", 5)


@pytest.fixture
def shards(images, tmp_path):
    """``s0`` of photo_4 and photo_3, ``s1`` of photo_2 and photo_1, ``s2`` of photo_0."""
    return pack_photos(tmp_path / "shards", images)


def annotate(masks, output):
    return AnnotationEngine(masks, [ColourLabeler()], images_per_batch=2, device="cpu").run(output)


def results(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*_semantic.json")
    }


def failures(folder):
    lines = (folder / "failures.jsonl").read_text().splitlines()
    return {line["name"]: line for line in map(json.loads, lines)}


def load_all(source):
    return {item.name: source.load(item) for item in source.items()}


def test_photos_in_shards_get_the_results_of_photos_in_files(images, tmp_path):
    write_photo(images, "below/bare", number=0)
    shards = pack_photos(tmp_path / "shards", images)
    write_tsv(shards / "t.tsv", [row_of(images, "below/bare")])
    summary = annotate(TsvMasks(shards), tmp_path / "of_rows")
    assert summary == annotate(Sa1bMasks(images), tmp_path / "of_files")
    assert len(results(tmp_path / "of_files")) == summary.finished == 6
    assert results(tmp_path / "of_rows") == results(tmp_path / "of_files")


def test_rows_are_listed_by_name_and_one_shard_is_as_good_as_a_folder(shards):
    items = TsvMasks(shards).items()
    assert [item.name for item in items] == [f"photo_{index}" for index in range(5)]
    assert [str(item.image) for item in items][:2] == [f"{shards}/s2.tsv:0", f"{shards}/s1.tsv:1"]
    assert items[1].file_name == "photo_1.jpg"
    assert [item.name for item in TsvMasks(shards / "s1.tsv").items()] == ["photo_1", "photo_2"]


def test_an_item_is_small_and_is_read_where_there_is_no_index(shards):
    items = pickle.loads(text := pickle.dumps(TsvMasks(shards).items() * 100))
    assert len(text) / len(items) < 60
    for index in shards.glob("*.lineidx"):
        index.unlink()
    assert TsvMasks(shards).load(items[3]).name == "photo_3"


def test_the_rows_of_a_label_file_replace_the_annotations(images, shards, tmp_path):
    masks = json.loads((images / "photo_4.json").read_text())
    bare = json.dumps(masks["annotations"][:1]).encode()
    whole = json.dumps({"annotations": [], "scene": "street"}).encode()
    write_labels(shards / "s0.tsv", [[b"photo_4", bare], [b"photo_3", whole]])
    photos = load_all(TsvMasks(shards))
    assert len(photos["photo_4"].annotations) == 1
    assert (photos["photo_4"].fields, photos["photo_3"].fields) == ({}, {"scene": "street"})
    assert len(photos["photo_3"].annotations) == 0
    assert len(photos["photo_2"].annotations) == 3
    write_labels(shards / "s0.tsv", [[b"photo_4", b"{"], [b"photo_3", b""]])
    annotate(TsvMasks(shards), tmp_path / "out")
    assert "s0.label:0: JSONDecodeError" in failures(tmp_path / "out")["photo_4"]["reason"]
    assert json.loads(results(tmp_path / "out")["photo_3_semantic.json"])["annotations"] == []
    write_labels(shards / "s0.tsv", [[b"photo_4", bare]])
    with pytest.raises(ValueError, match=r"s0\.label' has 1 rows, .*s0\.tsv' has 2"):
        TsvMasks(shards).items()


def test_fields_beside_the_annotations_are_kept_and_no_json_means_no_masks(images, tmp_path):
    name, text, image = row_of(images, "photo_3")
    content = json.loads(text)
    content = {"license": [1, {"by": "us"}], **content, "image": {"image_id": 7}}
    rows = [[name, json.dumps(content).encode(), image], [b"empty", b"", image]]
    write_tsv(tmp_path / "shards" / "s.tsv", rows)
    photos = load_all(TsvMasks(tmp_path / "shards"))
    assert photos["photo_3"].fields == {"license": [1, {"by": "us"}], "image": {"image_id": 7}}
    assert (photos["empty"].fields, photos["empty"].annotations) == ({}, [])
    annotate(TsvMasks(tmp_path / "shards"), tmp_path / "out")
    result = json.loads(results(tmp_path / "out")["photo_3_semantic.json"])
    assert list(result) == ["license", "image", "annotations"]


def test_a_damaged_row_is_noted_and_the_others_go_on(images, tmp_path):
    _, text, image = row_of(images, "photo_1")
    other_size = text.replace(b'"size": [48, 64]', b'"size": [48, 65]')
    rows = {
        "json": ([b"json", text[:-9], image], "JSONDecodeError"),
        "keys": ([b"keys", b"{}", image], "KeyError: 'annotations'"),
        "list": ([b"list", b'{"annotations": "none"}', image], "not a list of objects"),
        "size": ([b"size", other_size, image], r"mask 0 is [48, 65]"),
        "code": ([b"code", text, b"%%%"], "Error"),
        "pixels": ([b"pixels", text, image[:80]], "s.tsv:5"),
        "columns": ([b"columns", text], "not enough values"),
        "good": ([b"good", text, image], ""),
    }
    write_tsv(tmp_path / "shards" / "s.tsv", [row for row, _ in rows.values()])
    summary = annotate(TsvMasks(tmp_path / "shards"), tmp_path / "out")
    assert (summary.finished, summary.failed) == (1, len(rows) - 1)
    noted = failures(tmp_path / "out")
    for number, (name, (_, reason)) in enumerate(rows.items()):
        if reason:
            assert noted[name]["stage"] == "read"
            assert f"s.tsv:{number}" in noted[name]["reason"]
            assert reason in noted[name]["reason"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"/etc/photo", "leads out of"),
        (b"a/../../photo", "leads out of"),
        (b"\xff\xfe", "UnicodeDecodeError"),
        (b"", "no name"),
        (b"a//b", "no name"),
        (b"a\0b", "no name"),
        (b"long" * 60, "longer than 200 bytes"),
    ],
)
def test_a_name_that_is_no_path_in_the_output_folder_fails_alone(images, tmp_path, name, reason):
    row = row_of(images, "photo_1")
    write_tsv(tmp_path / "shards" / "s.tsv", [row, [name, *row[1:]]])
    annotate(TsvMasks(tmp_path / "shards"), tmp_path / "out")
    assert list(results(tmp_path / "out")) == ["photo_1_semantic.json"]
    noted = failures(tmp_path / "out")
    assert list(noted) == ["s.tsv:1"]
    assert reason in noted["s.tsv:1"]["reason"]
    photos = TsvPhotos(tmp_path / "shards")
    with pytest.raises(BadRecordError, match=rf"s\.tsv:1: .*{reason}"):
        photos.read(photos.items()[1])


def test_two_rows_of_one_name_are_an_error_that_names_both(images, shards):
    write_tsv(shards / "t.tsv", [row_of(images, "photo_3")])
    with pytest.raises(ValueError, match=r"s0\.tsv:1' and '.*t\.tsv:0' .*'photo_3'"):
        TsvMasks(shards).items()


def test_a_missing_index_or_shard_is_named(shards, tmp_path):
    (shards / "s1.lineidx").unlink()
    with pytest.raises(FileNotFoundError, match=r"s1\.lineidx"):
        TsvMasks(shards).items()
    write_list(shards, ["s0.tsv", "s9.tsv"])
    with pytest.raises(FileNotFoundError, match=r"s9\.tsv"):
        TsvMasks(shards).items()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        TsvMasks(tmp_path / "nowhere").items()


def test_sa1b_masks_point_to_the_source_that_reads_shards(shards):
    write_list(shards, ["s0.tsv"])
    with pytest.raises(FileNotFoundError, match="TsvMasks"):
        Sa1bMasks(shards).items()


def test_a_row_that_has_changed_is_done_again_and_no_other(images, shards, tmp_path):
    write_labels(shards / "s2.tsv", [row_of(images, "photo_0")[:2]])
    annotate(TsvMasks(shards), tmp_path / "out")
    before = results(tmp_path / "out")
    write_photo(images, "photo_3", number=6, seed=3)
    write_tsv(shards / "s0.tsv", [row_of(images, name) for name in ("photo_4", "photo_3")])
    write_labels(shards / "s2.tsv", [[b"photo_0", b"[]"]])
    engine = AnnotationEngine(
        TsvMasks(shards), [labeler := ColourLabeler()], images_per_batch=1, device="cpu"
    )
    engine.run(tmp_path / "out")
    after = results(tmp_path / "out")
    assert labeler.batches == [["photo_0"], ["photo_3"]]
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"photo_0_semantic.json", "photo_3_semantic.json"}
    assert len(json.loads(after["photo_3_semantic.json"])["annotations"]) == 6


def test_what_a_path_holds_decides_who_reads_its_photos(images, shards):
    assert isinstance(open_photos(shards), TsvPhotos)
    assert isinstance(open_photos(shards / "s0.tsv"), TsvPhotos)
    (images / "table.tsv").write_text("photo\tscene\n")
    for path in (images, images / "photo_0.png"):
        assert isinstance(open_photos(path), ImageFiles)


def test_generated_masks_are_those_of_the_photos_as_files(images, shards, tmp_path):
    torch.manual_seed(0)
    generator = AutomaticMaskGenerator(
        perturb(build_model(tiny_sam_cfg())).eval(),
        points_per_side=2,
        pred_iou_thresh=-100.0,
        stability_score_thresh=0.0,
        output_mode="coco_rle",
    )
    for source, output in ((images, "of_files"), (shards, "of_rows")):
        summary = annotate(GeneratedMasks(source, generator), tmp_path / output)
        assert summary.finished == 5
        assert summary.labelled > 0
    assert results(tmp_path / "of_rows") == results(tmp_path / "of_files")


def test_a_plan_counts_rows_and_their_masks(shards):
    engine = AnnotationEngine(TsvMasks(shards), [ColourLabeler()], device="cpu")
    plan = describe_plan(engine)
    assert "photos: 5" in plan
    assert "masks: 11 (TsvMasks)" in plan


def test_a_review_sheet_shows_photos_from_their_rows(images, shards, tmp_path):
    annotate(TsvMasks(shards), tmp_path / "results")
    annotate(Sa1bMasks(images), tmp_path / "of_files")
    pages = []
    for folder, source in (("results", shards), ("of_files", images)):
        write_review_sheet(tmp_path / folder, source, tmp_path / "review.html")
        pages.append((tmp_path / "review.html").read_text())
    assert pages[0].count("data:image/jpeg;base64,") == 5
    assert pages[0].replace(".jpg", ".png") == pages[1]
    write_tsv(shards / "s2.tsv", [row_of(images, "photo_0")[:2]])
    for name in ("s1.tsv", "s1.lineidx"):
        Path(shards, name).unlink()
    write_review_sheet(tmp_path / "results", shards, tmp_path / "review.html")
    page = (tmp_path / "review.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert "no row is called" in page
    assert "s2.tsv:0" in page


def test_a_photo_of_a_row_is_rgb_as_its_file_is(images, shards):
    files, rows = load_all(ImageFiles(images)), load_all(open_photos(shards))
    assert list(files) == list(rows)
    for name, photo in files.items():
        np.testing.assert_array_equal(rows[name].image, photo.image)
