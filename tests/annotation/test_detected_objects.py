import base64
import json

import cv2
import numpy as np
import pytest
import torch
from transformers import CLIPModel, CLIPTokenizer

from semsam.annotation.coco_export import export_coco, import_coco
from semsam.annotation.engine import build_engine
from semsam.annotation.pack import pack_text_regions
from semsam.annotation.plan import describe_plan
from semsam.annotation.report import write_review_sheet
from semsam.config import get_cfg
from semsam.data import DatasetCatalog
from semsam.data.records import decode_regions

from .detector_models import write_grounding_dino, write_language_model, write_owl
from .models import write_clip
from .photos import pack_photos, write_photos

CAPTIONS = ["a man on a street", "", "a car", "a photo of a photo", None, "a dog\na tree"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "LANGUAGE_MODEL": write_language_model(folder / "language_model"),
        "dino": write_grounding_dino(folder / "dino"),
        "owl": write_owl(folder / "owl"),
        "clip": write_clip(folder / "clip"),
    }


@pytest.fixture
def images(tmp_path):
    """Photos with captions beside them; one has none, one an empty one, one names nothing."""
    folder = write_photos(tmp_path / "images", len(CAPTIONS))
    for number, caption in enumerate(CAPTIONS):
        if caption is not None:
            (folder / f"photo_{number}.txt").write_text(caption)
    return folder


def make_cfg(models, detector="owl", **changes):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.ANNOTATION.LABELERS = ["TextEmbeddingLabeler"]
    cfg.ANNOTATION.MASKS.NAME = "DetectedObjects"
    cfg.ANNOTATION.TEXT_EMBEDDING.MODEL = models["clip"]
    node = cfg.ANNOTATION.DATA_ENGINE
    node.LANGUAGE_MODEL, node.DETECTOR = models["LANGUAGE_MODEL"], models[detector]
    node.TEMPLATES = ["Caption : {} \n Objects :", "a photo of {}"]
    node.MAX_NEW_TOKENS = 6
    node.THRESHOLD = 0.0
    for key, value in changes.items():
        node[key] = value
    return cfg


def results(folder):
    paths = sorted(folder.glob("*_semantic.json"))
    return {p.name.removesuffix("_semantic.json"): json.loads(p.read_text()) for p in paths}


@pytest.fixture
def done(models, images, tmp_path):
    """The photos and the folder of their results."""
    summary = build_engine(make_cfg(models), images).run(tmp_path / "out", save_img=True)
    assert (summary.finished, summary.failed) == (6, 0)
    return images, tmp_path / "out"


def test_boxes_of_what_captions_name_are_found_with_where_they_come_from(done, models):
    found = results(done[1])
    photo = found["photo_0"]
    assert photo["captions"] == ["a man on a street"]
    assert photo["generated_by"]["detector"] == models["owl"]
    assert photo["generated_by"]["language_model"] == models["LANGUAGE_MODEL"]
    assert photo["generated_by"]["templates"] == ["Caption : {} \n Objects :", "a photo of {}"]
    assert {"man", "street"} <= {candidate["name"] for candidate in photo["candidates"]}
    assert {"caption": 0, "template": None} in photo["candidates"][0]["sources"]
    every = [candidate for result in found.values() for candidate in result["candidates"]]
    assert {0, 1} & {source["template"] for c in every for source in c["sources"]}
    assert photo["annotations"]
    for region in photo["annotations"]:
        assert region["class_name"] == photo["candidates"][region["candidate"]]["name"]
        x, y, width, height = region["bbox"]
        assert 0 <= x <= x + width <= 64.01
        assert 0 <= y <= y + height <= 48.01
        assert 0 < region["score"] <= 1
        assert "segmentation" not in region
    assert len(found["photo_5"]["captions"]) == 2


def test_photos_without_captions_or_candidates_have_results_without_boxes(done):
    found = results(done[1])
    for name, captions in (("photo_1", []), ("photo_4", []), ("photo_3", ["a photo of a photo"])):
        assert found[name]["captions"] == captions
        if not captions:
            assert found[name]["annotations"] == found[name]["candidates"] == []


def test_embeddings_of_names_and_captions_are_the_text_towers(done, models):
    photo = results(done[1])["photo_5"]
    table = photo["text_embeddings"]
    assert table["encoder"] == models["clip"]
    assert set(table["texts"]) >= {"a dog", "a tree"}
    vectors = np.frombuffer(base64.b64decode(table["float16"]), dtype="<f2")
    vectors = vectors.reshape(len(table["texts"]), table["dim"]).astype(np.float32)
    tokenizer = CLIPTokenizer.from_pretrained(models["clip"])
    model = CLIPModel.from_pretrained(models["clip"])
    for text, vector in zip(table["texts"], vectors, strict=True):
        with torch.no_grad():
            expected = model.get_text_features(**tokenizer(text, return_tensors="pt"))
        expected = torch.nn.functional.normalize(expected.pooler_output[0], dim=0).numpy()
        np.testing.assert_allclose(vector, expected, atol=2e-3)
    for region in photo["annotations"]:
        assert table["texts"][region["text_embedding"]] == region["class_name"]


def assert_same_records(first, second):
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {"file_name"}:
            np.testing.assert_equal(one[key], other[key])


@pytest.mark.parametrize("source", ["folder", "shards", "parquet"])
def test_results_become_shards_for_training(done, tmp_path, source, models):
    images, output = done
    if source == "shards":
        images = pack_photos(tmp_path / "rows", images)
    if source == "parquet":
        build_engine(make_cfg(models), images).run(output, parquet=True)
        assert not list(output.glob("*_semantic.json"))
        build_engine(make_cfg(models), images).run(tmp_path / "again")
        found = results(tmp_path / "again")
    else:
        found = results(output)
    packed = pack_text_regions(output, images, tmp_path / "train", rows_per_shard=2)
    boxed = [name for name, result in found.items() if result["annotations"]]
    assert (packed.photos, packed.without_boxes) == (len(boxed), 6 - len(boxed))
    assert packed.left_out == []
    records = DatasetCatalog.get(f"text_regions_tsv://{tmp_path / 'train'}")
    plain = DatasetCatalog.get(f"shards://{tmp_path / 'train'}")
    assert [record["image_id"] for record in records] == boxed
    for record, other in zip(records, plain, strict=True):
        result = found[record["image_id"]]
        assert record["captions"] == result["captions"]
        assert record["encoder"] == models["clip"]
        assert record["text_embeddings"].shape == (len(record["regions"]), 16)
        assert record["caption_embeddings"].shape == (len(result["captions"]), 16)
        lengths = np.linalg.norm(record["text_embeddings"], axis=1)
        np.testing.assert_allclose(lengths, 1, atol=1e-6)
        names = [region["class_name"] for region in result["annotations"]]
        assert decode_regions(other, (48, 64)).phrases == [[name] for name in names]
        same = [i for i, name in enumerate(names) if name == names[0]]
        assert np.ptp(record["text_embeddings"][same], axis=0).max() == 0
    tars = tmp_path / "tars"
    assert pack_text_regions(output, images, tars, 2, form="webdataset", num_workers=2) == packed
    with pytest.raises(ValueError, match="type of their own"):
        DatasetCatalog.get(f"shards://{tars}")
    assert_same_records(DatasetCatalog.get(f"text_regions_tar://{tars}"), records)


def test_a_photo_that_is_gone_is_left_out_of_shards_and_named(done, tmp_path):
    images, output = done
    (images / "photo_2.png").unlink()
    packed = pack_text_regions(output, images, tmp_path / "train")
    assert len(packed.left_out) == 1
    assert "photo_2" in packed.left_out[0]
    records = DatasetCatalog.get(f"text_regions_tsv://{tmp_path / 'train'}")
    assert "photo_2" not in [record["image_id"] for record in records]
    for form in ("tsv", "webdataset"):
        with pytest.raises(ValueError, match="packed"):
            pack_text_regions(output, images, tmp_path / "train", form=form)
    with pytest.raises(ValueError, match="of the form tsv or webdataset, not 'zip'"):
        pack_text_regions(output, images, tmp_path / "other", form="zip")


def test_results_without_embeddings_are_no_training_data(done, tmp_path):
    images, output = done
    for path in output.glob("*_semantic.json"):
        result = json.loads(path.read_text())
        result.pop("text_embeddings", None)
        path.write_text(json.dumps(result))
    with pytest.raises(FileNotFoundError, match="no usable image"):
        pack_text_regions(output, images, tmp_path / "train")


def test_boxes_are_drawn_and_exported_without_masks(done, tmp_path):
    output = done[1]
    picture = cv2.imread(str(output / "photo_0_semantic.png"))
    faded = cv2.imread(str(output / "photo_1_semantic.png"))
    assert picture.shape == faded.shape == (96, 128, 3)
    number = export_coco(output, tmp_path / "coco.json")
    content = json.loads((tmp_path / "coco.json").read_text())
    assert number == len(content["annotations"]) > 3
    first = results(output)["photo_0"]["annotations"][0]
    assert content["annotations"][0]["bbox"] == first["bbox"]
    assert content["annotations"][0]["segmentation"] == []
    assert export_coco(output, tmp_path / "coco.json", polygons=True) == number


def test_boxes_that_were_reviewed_come_back(done, tmp_path):
    output = done[1]
    export_coco(output, tmp_path / "coco.json")
    counts = import_coco(tmp_path / "coco.json", output, tmp_path / "same")
    assert set(counts.values()) == {0, counts["kept"]}
    assert results(tmp_path / "same") == results(output)
    content = json.loads((tmp_path / "coco.json").read_text())
    first = max(content["annotations"], key=lambda a: a["area"])
    first["category_id"] = next(
        c["id"] for c in content["categories"] if c["id"] != first["category_id"]
    )
    x, y, width, height = first["bbox"]
    first["bbox"] = [x, y, width - 2, height]
    (tmp_path / "coco.json").write_text(json.dumps(content))
    counts = import_coco(tmp_path / "coco.json", output, tmp_path / "other")
    assert counts == {
        "kept": sum(counts.values()) - 1,
        "renamed": 0,
        "reshaped": 1,
    } | dict.fromkeys(("added", "removed"), 0)
    boxes = [a["bbox"] for r in results(tmp_path / "other").values() for a in r["annotations"]]
    assert first["bbox"] in boxes


def test_the_review_sheet_tells_of_candidates_and_shows_boxes(done, tmp_path):
    images, output = done
    report = write_review_sheet(output, images, tmp_path / "sheet.html", num_photos=2)
    page = (tmp_path / "sheet.html").read_text()
    assert report.masks == report.named["class_name"] > 0
    assert page.count("data:image/jpeg;base64,") == 2
    assert "5 captions gave" in page
    assert "<td>the captions</td>" in page
    assert "<td>a photo of {}</td>" in page
    assert "<p>a man on a street</p>" in page
    assert f"<p>{report.masks} boxes in 6 photos.</p>" in page
    assert "<th>name</th><th>score</th><th>from</th>" in page


def test_grounding_dino_takes_the_same_place(models, images, tmp_path):
    engine = build_engine(make_cfg(models, "dino"), images)
    summary = engine.run(tmp_path / "out")
    assert summary.finished == 6
    assert summary.labelled == summary.masks > 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert set(manifest["masks"]["models"]) == {
        "find_candidates.write.model",
        "detector.family.model",
    }
    plan = describe_plan(engine)
    assert "found in each photo (DetectedObjects)" in plan
    assert "GPT2LMHeadModel" in plan


def test_without_templates_no_language_model_is_loaded(models, images, tmp_path):
    cfg = make_cfg(models, TEMPLATES=[], LANGUAGE_MODEL="/nowhere/to/be/found")
    build_engine(cfg, images).run(tmp_path / "out")
    photo = results(tmp_path / "out")["photo_0"]
    assert [candidate["name"] for candidate in photo["candidates"]] == ["man", "street"]
    assert photo["generated_by"]["language_model"] == ""
    assert "a man on a street" in photo["text_embeddings"]["texts"]


def test_the_company_of_a_group_decides_nothing_but_the_rounding(models, images, tmp_path):
    cfg = make_cfg(models)
    build_engine(cfg, images).run(tmp_path / "four")
    cfg.ANNOTATION.IMAGES_PER_BATCH = 1
    build_engine(cfg, images).run(tmp_path / "one")
    four, one = results(tmp_path / "four"), results(tmp_path / "one")
    for name, result in four.items():
        assert result["candidates"] == one[name]["candidates"]
        for first, second in zip(result["annotations"], one[name]["annotations"], strict=True):
            assert first["class_name"] == second["class_name"]
            np.testing.assert_allclose(first["bbox"], second["bbox"], atol=0.02)


def test_a_run_in_which_nothing_is_found_says_so_and_leaves_its_results(models, images, tmp_path):
    engine = build_engine(make_cfg(models, THRESHOLD=1.0), images)
    with pytest.raises(RuntimeError, match="none of the 6 photos has a mask or a box"):
        engine.run(tmp_path / "out")
    assert len(results(tmp_path / "out")) == 6
