import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from semsam.annotation.coco_export import export_coco, import_coco
from semsam.annotation.engine import AnnotationEngine
from semsam.annotation.mask_sources import CocoMasks, Sa1bMasks
from semsam.data.records import BadRecordError

from .colour_labeler import ColourLabeler
from .photos import encode, rectangles, write_photo, write_photos


@pytest.fixture
def results(tmp_path):
    images = write_photos(tmp_path / "images", 4)
    write_photo(images, "sub/empty", number=0, suffix=".jpg")
    engine = AnnotationEngine(Sa1bMasks(images), [ColourLabeler()], device="cpu")
    engine.run(tmp_path / "results")
    return tmp_path / "results"


def read(folder, name):
    return json.loads((folder / f"{name}_semantic.json").read_text())


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("polygons", [False, True])
def test_an_export_is_read_by_pycocotools_with_the_same_masks(results, tmp_path, polygons):
    assert export_coco(results, tmp_path / "coco.json", polygons=polygons) == 10
    coco = COCO(str(tmp_path / "coco.json"))
    names = [coco.imgs[i]["file_name"] for i in sorted(coco.imgs)]
    assert names == [*(f"photo_{i}.png" for i in range(4)), "sub/empty.jpg"]
    of_last = coco.loadAnns(coco.getAnnIds(imgIds=[4]))
    expected = read(results, "photo_3")["annotations"]
    for annotation, region, mask in zip(of_last, expected, rectangles(4, 3), strict=True):
        np.testing.assert_array_equal(coco.annToMask(annotation), mask)
        assert coco.cats[annotation["category_id"]]["name"] == region["class_name"]
        x, y, width, height = region["bbox"]
        assert annotation["bbox"] == [x, y, width + 1, height + 1]
        assert annotation["area"] == region["area"]


def test_an_export_can_be_annotated_again(results, tmp_path):
    export_coco(results, tmp_path / "coco.json")
    source = CocoMasks(tmp_path / "images", tmp_path / "coco.json")
    assert [len(source.load(item).annotations) for item in source.items()] == [1, 2, 3, 4, 0]


@pytest.mark.parametrize("polygons", [False, True])
def test_a_review_that_changed_nothing_gives_the_results_back(results, tmp_path, polygons):
    export_coco(results, tmp_path / "coco.json", polygons=polygons)
    counts = import_coco(tmp_path / "coco.json", results, tmp_path / "reviewed")
    assert counts == {"kept": 10, "renamed": 0, "reshaped": 0, "added": 0, "removed": 0}
    for name in ("photo_0", "photo_3", "sub/empty"):
        assert read(tmp_path / "reviewed", name) == read(results, name)


def test_irregular_outlines_come_back_too(tmp_path, results):
    rng = np.random.default_rng(0)
    blob = coco_mask.decode(encode(rng.random((48, 64)) > 0.6)).astype(bool)
    path = results / "photo_0_semantic.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = encode(blob)
    path.write_text(json.dumps(content))
    export_coco(results, tmp_path / "coco.json", polygons=True)
    counts = import_coco(tmp_path / "coco.json", results, tmp_path / "reviewed")
    assert counts["kept"] == 10
    assert read(tmp_path / "reviewed", "photo_0") == content


def test_names_outlines_deletions_and_additions_of_a_review_arrive(results, tmp_path):
    export_coco(results, tmp_path / "coco.json")
    wider = np.zeros((48, 64), dtype=bool)
    y, x = np.argwhere(rectangles(3, 2)[1])[0]
    wider[y : y + 14, x : x + 22] = True
    fresh = np.zeros((48, 64), dtype=bool)
    fresh[45:, :4] = True

    def edit(content):
        images = {image["file_name"]: image["id"] for image in content["images"]}
        content["categories"].append({"id": 99, "name": "lamp"})
        for image in content["images"]:
            image["file_name"] = "upload/" + image["file_name"]
        of_photo = [a for a in content["annotations"] if a["image_id"] == images["photo_2.png"]]
        of_photo[0]["category_id"] = 99
        of_photo[1]["segmentation"] = encode(wider)
        content["annotations"].remove(of_photo[2])
        content["annotations"].append(
            {"image_id": images["photo_2.png"], "category_id": 99, "segmentation": encode(fresh)}
        )
        # Tools number anew.
        for number, annotation in enumerate(reversed(content["annotations"])):
            annotation["id"] = 500 + number

    change(tmp_path / "coco.json", edit)
    counts = import_coco(tmp_path / "coco.json", results, tmp_path / "reviewed")
    assert counts == {"kept": 7, "renamed": 1, "reshaped": 1, "added": 1, "removed": 1}
    before = read(results, "photo_2")["annotations"]
    after = read(tmp_path / "reviewed", "photo_2")["annotations"]
    assert after[0] == {**before[0], "class_name": "lamp"}
    assert after[1]["segmentation"] == encode(wider)
    assert (after[1]["area"], after[1]["bbox"]) == (14 * 22, [x, y, 21, 13])
    assert after[1]["class_proposals"] == before[1]["class_proposals"]
    assert after[2]["class_name"] == "lamp"
    assert after[2]["bbox"] == [0, 45, 3, 2]


def test_a_review_of_photos_without_a_result_is_an_error(results, tmp_path):
    export_coco(results, tmp_path / "coco.json")
    change(
        tmp_path / "coco.json", lambda content: content["images"][0].update(file_name="other.png")
    )
    with pytest.raises(BadRecordError, match=r"'other\.png' has no result"):
        import_coco(tmp_path / "coco.json", results, tmp_path / "reviewed")


def test_a_mask_of_another_size_in_a_review_is_named(results, tmp_path):
    export_coco(results, tmp_path / "coco.json")

    def edit(content):
        content["annotations"][0]["segmentation"]["size"] = [64, 48]

    change(tmp_path / "coco.json", edit)
    with pytest.raises(BadRecordError, match=r"photo_0\.png.*a mask is \[64, 48\]"):
        import_coco(tmp_path / "coco.json", results, tmp_path / "reviewed")


def test_results_are_not_overwritten_by_their_review(results, tmp_path):
    export_coco(results, tmp_path / "coco.json")
    with pytest.raises(ValueError, match="name another folder"):
        import_coco(tmp_path / "coco.json", results, results)


def test_a_field_that_no_mask_has_and_a_folder_without_results_are_errors(results, tmp_path):
    with pytest.raises(ValueError, match=r"no mask in .* has a 'caption'"):
        export_coco(results, tmp_path / "coco.json", field="caption")
    with pytest.raises(FileNotFoundError, match=r"no journal\.jsonl"):
        export_coco(tmp_path / "images", tmp_path / "coco.json")
