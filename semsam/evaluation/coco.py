"""Average precision and recall, by COCO's rules, of masks that were found without a prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as coco_mask

from semsam.data.records import LazyImage, decode_annotations

from .evaluator import DatasetEvaluator, Results, gather_by_image

#: Masks an image of which recall is reported; precision counts the last of them.
MAX_MASKS = (10, 100, 1000)
_SIZES = ("", " small", " medium", " large")


class AutomaticMaskEvaluator(DatasetEvaluator):
    """Mask AP and AR of an automatic mask generator against the objects of a dataset.

    Usage::

        evaluator = AutomaticMaskEvaluator()
        for record in DatasetCatalog.get("coco_2017_val_panoptic_interactive"):
            image = np.asarray(LazyImage(record).decode())
            evaluator.process([record], [generator.generate(image)])
        results = evaluator.evaluate()

    Masks are compared in the photo's frame and ranked by ``predicted_iou``. Every object counts as
    the same class; crowds neither count nor cost (pycocotools' rules).
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what was taken in."""
        # Size, objects and found masks of each image; the latter two as COCO has them, without ids.
        self._images: dict[Any, tuple[tuple[int, int], list[dict], list[dict]]] = {}

    def process(self, inputs: list[dict[str, Any]], outputs: list[list[dict[str, Any]]]) -> None:
        """Take in images.

        Args:
            inputs: dataset records (see ``semsam.data.records``).
            outputs: for each, the generator's records, in any ``output_mode``.

        Raises:
            BadRecordError: if image or ground truth are damaged.
            ValueError: if a found mask is not of the photo's size.
        """
        for record, found in zip(inputs, outputs, strict=True):
            size = LazyImage(record).size
            masks = [_detection(mask, size) for mask in found]
            self._images[record["image_id"]] = size, _objects(record, size), masks

    def evaluate(self) -> Results:
        """Task "masks", in percent; object sizes that do not occur are left out.

        Metrics: ``AP`` (mean over IoU 0.5 to 0.95), ``AP50``, ``AP75``, ``AP small`` and so on;
        ``AR@n`` (mean over the same IoU, n masks an image), ``AR@1000 small`` and so on.
        """
        images: list[dict[str, Any]] = []
        objects: list[dict[str, Any]] = []
        found: list[dict[str, Any]] = []
        for number, values in enumerate(gather_by_image(self._images).values()):
            (height, width), here, masks = values
            place = {"image_id": number, "category_id": 1}
            images.append({"id": number, "height": height, "width": width})
            objects += [{**item, **place, "id": len(objects) + i} for i, item in enumerate(here, 1)]
            found += [{**mask, **place} for mask in masks]
        categories = [{"id": 1, "name": "object"}]
        truth = {"images": images, "annotations": objects, "categories": categories}
        ground_truth = COCO(truth)
        evaluation = COCOeval_faster(ground_truth, ground_truth.loadRes(found), "segm")
        evaluation.params.maxDets = list(MAX_MASKS)
        evaluation.evaluate()
        evaluation.accumulate()
        return {"masks": _metrics(evaluation)}


def _metrics(evaluation: COCOeval_faster) -> dict[str, float]:
    thresholds = np.asarray(evaluation.params.iouThrs)
    # (IoU thresholds, recall thresholds, 1, sizes, limits) and the same without the second.
    precision = np.asarray(evaluation.eval["precision"])[:, :, 0]
    recall = np.asarray(evaluation.eval["recall"])[:, 0]
    values = {"AP": precision[:, :, 0, -1]}
    for percent in (50, 75):
        values[f"AP{percent}"] = precision[np.isclose(thresholds, percent / 100), :, 0, -1]
    for i, size in enumerate(_SIZES[1:], 1):
        values[f"AP{size}"] = precision[:, :, i, -1]
    for i, limit in enumerate(MAX_MASKS):
        values[f"AR@{limit}"] = recall[:, 0, i]
    for i, size in enumerate(_SIZES[1:], 1):
        values[f"AR@{MAX_MASKS[-1]}{size}"] = recall[:, i, -1]
    # -1 stands for "no such object".
    return {name: 100 * float(v.mean()) for name, v in values.items() if (v > -1).all()}


def _objects(record: dict[str, Any], size: tuple[int, int]) -> list[dict[str, Any]]:
    """A record's objects as COCO annotations, crowds among them."""
    key = "segments_info" if "segments_info" in record else "annotations"
    crowds = [int(item.get("iscrowd", 0)) for item in record[key]]
    everything = {**record, key: [{**item, "iscrowd": 0} for item in record[key]]}
    masks = decode_annotations(everything, size).masks
    return [
        {"segmentation": code, "iscrowd": crowd, "area": int(area), "bbox": coco_mask.toBbox(code)}
        for code, crowd, area in zip(_encode(masks.decode()), crowds, masks.areas, strict=True)
    ]


def _detection(mask: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """A generator's record as a COCO result."""
    code = mask["segmentation"]
    if isinstance(code, np.ndarray):
        (code,) = _encode(code[None])
    elif isinstance(code["counts"], list):
        code = coco_mask.frPyObjects(code, *code["size"])
    if tuple(code["size"]) != size:
        raise ValueError(f"a found mask is {list(code['size'])}, its photo {list(size)}")
    return {"segmentation": code, "score": mask["predicted_iou"]}


def _encode(masks: np.ndarray) -> list[dict[str, Any]]:
    """Run-length codes of (M, H, W) bool masks."""
    return coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8))
