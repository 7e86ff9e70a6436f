import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from semsam.annotation.build import MASK_SOURCE, build_mask_source
from semsam.annotation.mask_models import GeneratedMasks, TransformersMasks
from semsam.annotation.mask_sources import CocoMasks, ImageFiles, Sa1bMasks
from semsam.config import get_cfg
from semsam.data.records import BadRecordError
from semsam.inference import AutomaticMaskGenerator
from semsam.modeling import build_model

from ..tiny import perturb, tiny_sam_cfg
from .detector_models import write_language_model, write_owl
from .models import write_clip
from .photos import SIZE, pack_photos, rectangles, write_photo, write_photos
from .sam_models import write_sam, write_sam2, write_sam3


@pytest.fixture
def images(tmp_path):
    return write_photos(tmp_path / "images", 3)


def names(source):
    return [item.name for item in source.items()]


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_sa1b_items_are_sorted_and_found_in_folders_below(images):
    write_photo(images, "sub/deep", suffix=".jpg")
    assert names(Sa1bMasks(images)) == ["photo_0", "photo_1", "photo_2", "sub/deep"]


def test_a_result_a_manifest_and_a_hidden_file_are_no_input(images):
    for name in ("photo_0_semantic.json", "manifest.json", ".photo_1.json.tmp.json"):
        (images / name).write_text("{}")
    (images / "photo_0_semantic.png").write_bytes((images / "photo_0.png").read_bytes())
    assert names(Sa1bMasks(images)) == ["photo_0", "photo_1", "photo_2"]
    assert names(ImageFiles(images)) == ["photo_0", "photo_1", "photo_2"]


def test_a_photo_of_sa1b_keeps_every_field_of_its_file(images):
    source = Sa1bMasks(images)
    photo = source.load(source.items()[2])
    content = json.loads((images / "photo_2.json").read_text())
    assert {**photo.fields, "annotations": photo.annotations} == content
    assert photo.image.shape == (*SIZE, 3)
    np.testing.assert_array_equal(photo.mask(1), rectangles(3, 2)[1])


def test_the_image_is_the_first_of_the_known_suffixes(images):
    (images / "photo_0.jpg").write_bytes(b"another")
    (images / "photo_1.png").rename(images / "photo_1.JPEG")
    found = [item.image.name for item in Sa1bMasks(images).items()]
    assert found == ["photo_0.png", "photo_1.JPEG", "photo_2.png"]


def test_a_bare_list_and_missing_boxes_and_list_counts_are_read(images):
    path = images / "photo_1.json"
    annotations = json.loads(path.read_text())["annotations"]
    expected = [dict(a) for a in annotations]
    for annotation in annotations:
        del annotation["bbox"], annotation["area"]
    flat = rectangles(2, 1)[0].ravel(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    annotations[0]["segmentation"] = {"size": list(SIZE), "counts": counts}
    path.write_text(json.dumps(annotations))
    source = Sa1bMasks(images)
    photo = source.load(source.items()[1])
    assert photo.fields == {}
    for got, wanted in zip(photo.annotations, expected, strict=True):
        assert {**got} == wanted


def test_one_image_or_its_json_is_as_good_as_a_folder(images):
    for name in ("photo_1.png", "photo_1.json"):
        source = Sa1bMasks(images / name)
        assert names(source) == ["photo_1"]
        assert len(source.load(source.items()[0]).annotations) == 2
    assert names(ImageFiles(images / "photo_1.png")) == ["photo_1"]


def cut_json(folder):
    path = folder / "photo_0.json"
    path.write_bytes(path.read_bytes()[:-40])


def cut_image(folder):
    path = folder / "photo_0.png"
    path.write_bytes(path.read_bytes()[:60])


def no_image(folder):
    (folder / "photo_0.png").unlink()


def other_size(folder):
    def edit(content):
        content["annotations"][0]["segmentation"]["size"] = [47, 64]

    change(folder / "photo_0.json", edit)


def damaged_counts(folder):
    def edit(content):
        content["annotations"][0]["segmentation"]["counts"] = "0~~"

    change(folder / "photo_0.json", edit)


def no_annotations(folder):
    change(folder / "photo_0.json", lambda content: content.pop("annotations"))


def text_for_annotations(folder):
    change(folder / "photo_0.json", lambda content: content.update(annotations="none"))


def infinite_box(folder):
    def edit(content):
        content["annotations"][0]["bbox"] = [0, 0, float("inf"), 1]

    change(folder / "photo_0.json", edit)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut_json, "photo_0.json: JSONDecodeError"),
        (cut_image, "photo_0.png"),
        (no_image, "no image of this name"),
        (other_size, r"mask 0 is \[47, 64\]"),
        (damaged_counts, "run-length text is damaged"),
        (no_annotations, "annotations"),
        (text_for_annotations, "not a list of objects"),
        (infinite_box, "finite"),
    ],
)
def test_damage_is_a_bad_record_that_names_the_file(images, damage, reason):
    damage(images)
    source = Sa1bMasks(images)
    with pytest.raises(BadRecordError, match=reason) as error:
        source.load(source.items()[0])
    assert "photo_0" in str(error.value)
    assert source.load(source.items()[1]).annotations


@pytest.mark.parametrize("source", [Sa1bMasks, ImageFiles])
def test_a_folder_with_nothing_and_a_path_that_is_not_there_are_errors(source, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no (image|json)"):
        source(tmp_path).items()
    with pytest.raises(FileNotFoundError, match="does not exist"):
        source(tmp_path / "missing").items()


def test_two_images_that_would_share_a_result_are_an_error(images):
    (images / "photo_0.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"photo_0\..*would have one result"):
        ImageFiles(images).items()


@pytest.fixture
def coco_json(images, tmp_path):
    """Polygons of photo_0, a list of counts in photo_1, nothing in photo_2."""
    flat = np.zeros(SIZE, dtype=bool)
    flat[10:20, 5] = True
    counts = [5 * 48 + 10, 10, 48 * 64 - 5 * 48 - 20]
    content = {
        "images": [
            {"id": 7 - i, "file_name": f"photo_{i}.png", "height": 48, "width": 64}
            for i in range(3)
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 3,
                "bbox": [4, 4, 20, 10],
                "area": 200,
                "segmentation": [[4, 4, 24, 4, 24, 14, 4, 14]],
            },
            {
                "id": 2,
                "image_id": 6,
                "iscrowd": 1,
                "segmentation": {"size": [48, 64], "counts": counts},
            },
        ],
        "categories": [{"id": 3, "name": "thing"}],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path, flat


def test_coco_annotations_of_every_form_become_masks(images, coco_json):
    path, column = coco_json
    source = CocoMasks(images, path)
    polygon, crowd, empty = (source.load(item) for item in source.items())
    assert source.count_masks() == 2
    assert polygon.mask(0).sum() == 200
    assert polygon.annotations[0]["category_id"] == 3
    assert polygon.fields["image"]["id"] == 7
    np.testing.assert_array_equal(crowd.mask(0), column)
    assert crowd.annotations[0]["bbox"] == [5, 10, 0, 9]
    assert len(empty.annotations) == 0


def test_one_image_of_a_coco_json_can_be_chosen(images, coco_json):
    source = CocoMasks(images / "photo_1.png", coco_json[0])
    assert names(source) == ["photo_1"]
    with pytest.raises(FileNotFoundError, match=r"no image 'photo_1\.json'"):
        CocoMasks(images / "photo_1.json", coco_json[0].parent / "instances.json").items()


def test_a_coco_json_cannot_lead_out_of_the_folder(images, tmp_path):
    content = {"images": [{"id": 1, "file_name": "../secret.png"}], "annotations": []}
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(BadRecordError, match="outside of the folder"):
        CocoMasks(images, tmp_path / "bad.json")


def test_a_damaged_coco_json_is_named(images, tmp_path):
    (tmp_path / "bad.json").write_text('{"images": [{}]}')
    with pytest.raises(BadRecordError, match=r"bad\.json: KeyError"):
        CocoMasks(images, tmp_path / "bad.json")


@pytest.fixture(scope="module")
def sam():
    torch.manual_seed(0)
    return perturb(build_model(tiny_sam_cfg())).eval()


@pytest.fixture(scope="module")
def transformers_sam(tmp_path_factory):
    return write_sam(tmp_path_factory.mktemp("sam"))


def test_a_generator_of_semsam_finds_masks_of_plain_images(images, sam):
    settings = {"pred_iou_thresh": -100.0, "stability_score_thresh": 0.0, "points_per_side": 3}
    generator = AutomaticMaskGenerator(sam, output_mode="coco_rle", **settings)
    source = GeneratedMasks(images, generator)
    photo = source.load(source.items()[0])
    assert photo.fields == {}
    assert list(photo.annotations) == generator.generate(photo.image)
    assert photo.mask(0).any()


def test_a_generator_of_bitmaps_is_rejected(images, sam):
    with pytest.raises(ValueError, match="coco_rle"):
        GeneratedMasks(images, AutomaticMaskGenerator(sam))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("write_model", [write_sam, write_sam2, write_sam3])
def test_a_checkpoint_of_transformers_finds_masks(images, tmp_path, write_model, dtype):
    source = TransformersMasks(
        *(images, write_model(tmp_path / "model"), "cpu"),
        points_per_side=3,
        pred_iou_thresh=-100,
        stability_score_thresh=-1,
        dtype=dtype,
    )
    photo = source.load(source.items()[0])
    record = photo.annotations[0]
    assert photo.mask(0).sum() == record["area"] > 0
    x, y, width, height = coco_mask.toBbox(record["segmentation"]).tolist()
    assert record["bbox"] == [x, y, width - 1, height - 1]
    json.dumps(list(photo.annotations))


def test_a_checkpoint_that_finds_nothing_gives_no_masks(images, transformers_sam):
    source = TransformersMasks(
        images, transformers_sam, "cpu", points_per_side=2, pred_iou_thresh=9
    )
    assert len(source.load(source.items()[0]).annotations) == 0


def test_a_checkpoint_that_is_not_there_is_one_error_with_the_cure(images, tmp_path):
    with pytest.raises(RuntimeError, match=r"ANNOTATION\.MASKS\.MODEL.*no such folder"):
        TransformersMasks(images, str(tmp_path / "nowhere"), "cpu")


def test_a_checkpoint_of_another_kind_of_model_is_refused(images, tmp_path):
    write_clip(tmp_path / "clip")
    with pytest.raises(RuntimeError, match=r"ANNOTATION\.MASKS\.MODEL: cannot load"):
        TransformersMasks(images, str(tmp_path / "clip"), "cpu")


def test_every_source_is_built_from_the_configuration(
    images, coco_json, transformers_sam, tmp_path
):
    pack_photos(tmp_path / "shards", images)
    (images / "photo_1.txt").write_text("a dog")
    run = tmp_path / "run"
    run.mkdir()
    cfg = tiny_sam_cfg()
    (run / "config.yaml").write_text(cfg.dump())
    torch.save(build_model(cfg).state_dict(), run / "model_final.pth")
    models = {"GeneratedMasks": str(run), "TransformersMasks": transformers_sam}
    photos = {"TsvMasks": tmp_path / "shards"}
    writer, detector = write_language_model(tmp_path / "lm"), write_owl(tmp_path / "owl")
    sources = {"Sa1bMasks", "CocoMasks", "TsvMasks", "DetectedObjects", *models}
    for name in sources:
        cfg = get_cfg()
        cfg.MODEL.DEVICE = "cpu"
        cfg.ANNOTATION.MASKS.NAME = name
        cfg.ANNOTATION.MASKS.ANNOTATIONS = str(coco_json[0])
        cfg.ANNOTATION.MASKS.MODEL = models.get(name, "")
        cfg.ANNOTATION.DATA_ENGINE.LANGUAGE_MODEL = writer
        cfg.ANNOTATION.DATA_ENGINE.DETECTOR = detector
        source = build_mask_source(cfg, photos.get(name, images))
        assert names(source) == ["photo_0", "photo_1", "photo_2"]
    # Projects add theirs.
    assert sources <= set(MASK_SOURCE)


def test_a_photo_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.new("RGB", (64, 48)).save(path, exif=exif)
    source = ImageFiles(path)
    assert source.load(source.items()[0]).image.shape == (64, 48, 3)
