import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from semsam.evaluation.coco import AutomaticMaskEvaluator
from semsam.inference.amg_utils import encode_mask

SIZE = (120, 160)


def draw_scene(rng):
    """(9, H, W) bool rectangles of all of COCO's sizes."""
    masks = np.zeros((9, *SIZE), dtype=bool)
    for mask in masks:
        height, width = rng.integers(8, (115, 155))
        top, left = rng.integers(0, (SIZE[0] - height, SIZE[1] - width))
        mask[top : top + height, left : left + width] = True
    return masks


def encode(mask):
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def write_photo(path):
    Image.new("RGB", SIZE[::-1]).save(path)
    return str(path)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Four records and, for each, masks that were found: moved objects and false ones."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("scenes")
    records, found = [], []
    for number in range(4):
        objects = draw_scene(rng)
        annotations = [
            {"segmentation": encode(m), "iscrowd": int(i == 8)} for i, m in enumerate(objects)
        ]
        records.append(
            {
                "file_name": write_photo(folder / f"{number}.png"),
                "image_id": f"scene {number}",
                "annotations": annotations,
            }
        )
        moved = [np.roll(m, rng.integers(-6, 7, 2), axis=(0, 1)) for m in objects]
        masks = [*moved, *draw_scene(rng)[:3]]
        found.append([{"segmentation": m, "predicted_iou": rng.random()} for m in masks])
    return records, found


def reference(records, found):
    """pycocotools on the same masks."""
    truth = COCO()
    annotations, results = [], []
    for number, (record, masks) in enumerate(zip(records, found, strict=True)):
        for item in record["annotations"]:
            area, box = (f(item["segmentation"]) for f in (coco_mask.area, coco_mask.toBbox))
            own = {"id": len(annotations) + 1, "image_id": number, "category_id": 1}
            annotations.append({**item, **own, "area": int(area), "bbox": box.tolist()})
        for mask in masks:
            code, score = encode(mask["segmentation"]), mask["predicted_iou"]
            here = {"image_id": number, "category_id": 1}
            results.append({**here, "segmentation": code, "score": score})
    images = [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(len(records))]
    truth.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1}]}
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(results), "segm")
    evaluation.params.maxDets = [10, 100, 1000]
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = evaluation.eval["precision"][:, :, 0], evaluation.eval["recall"][:, 0]
    return {
        "AP": precision[:, :, 0, 2],
        "AP50": precision[0, :, 0, 2],
        "AP75": precision[5, :, 0, 2],
        "AP small": precision[:, :, 1, 2],
        "AP medium": precision[:, :, 2, 2],
        "AP large": precision[:, :, 3, 2],
        "AR@10": recall[:, 0, 0],
        "AR@100": recall[:, 0, 1],
        "AR@1000": recall[:, 0, 2],
        "AR@1000 small": recall[:, 1, 2],
        "AR@1000 medium": recall[:, 2, 2],
        "AR@1000 large": recall[:, 3, 2],
    }


def test_numbers_equal_those_of_pycocotools(scenes):
    evaluator = AutomaticMaskEvaluator()
    evaluator.process(*scenes)
    ours = evaluator.evaluate()["masks"]
    theirs = {name: 100 * values.mean() for name, values in reference(*scenes).items()}
    assert ours == pytest.approx(theirs)
    assert 0 < ours["AP"] < ours["AP50"] < 100


@pytest.mark.parametrize("mode", ["uncompressed_rle", "coco_rle"])
def test_every_output_mode_of_the_generator_gives_the_same_numbers(scenes, mode):
    records, found = scenes
    coded = [
        [{**m, "segmentation": encode_mask(m["segmentation"], mode)} for m in masks]
        for masks in found
    ]
    evaluator = AutomaticMaskEvaluator()
    evaluator.process(records, found)
    expected = evaluator.evaluate()
    evaluator.reset()
    evaluator.process(records, coded)
    assert evaluator.evaluate() == expected


def test_panoptic_segments_are_the_objects_and_a_crowd_costs_nothing(tmp_path):
    labels = np.zeros((*SIZE, 3), dtype=np.uint8)
    labels[10:60, 10:60, 0] = 7
    labels[70:110, 80:150, 0] = 9
    Image.fromarray(labels).save(tmp_path / "labels.png")
    record = {
        "file_name": write_photo(tmp_path / "photo.png"),
        "image_id": 1,
        "pan_seg_file_name": str(tmp_path / "labels.png"),
        "segments_info": [
            {"id": 7, "category_id": 3, "iscrowd": 0},
            {"id": 9, "category_id": 5, "iscrowd": 1},
        ],
    }
    found = [
        {"segmentation": labels[..., 0] == 9, "predicted_iou": 0.9},
        {"segmentation": labels[..., 0] == 7, "predicted_iou": 0.8},
    ]
    evaluator = AutomaticMaskEvaluator()
    evaluator.process([record], [found])
    results = evaluator.evaluate()["masks"]
    assert results["AP"] == pytest.approx(100)
    assert "AP large" not in results
    assert results["AP medium"] == pytest.approx(100)


def test_a_generator_that_finds_nothing_has_no_precision(scenes):
    records, _ = scenes
    evaluator = AutomaticMaskEvaluator()
    evaluator.process(records, [[] for _ in records])
    assert evaluator.evaluate()["masks"]["AP"] == 0


def test_a_mask_of_another_size_than_the_photo_is_rejected(scenes):
    records, _ = scenes
    mask = {"segmentation": np.ones((10, 10), bool), "predicted_iou": 1.0}
    with pytest.raises(ValueError, match="found mask"):
        AutomaticMaskEvaluator().process(records[:1], [[mask]])
