"""Average precision of objects with classes by COCO's rules, or by LVIS's federated ones.

The matching is faster-coco-eval's; the numbers are pycocotools', and of LVIS those of its API.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

#: Objects an image that count: by COCO's rules of each class, by LVIS's of all classes together.
MAX_DETECTIONS = 100
MAX_DETECTIONS_LVIS = 300
#: Pairs of an image and a class that are matched at once; each costs some 200 bytes.
_MAX_PAIRS = 2_000_000
_SIZES = ("", "s", "m", "l")


def match_objects(
    truth: dict[str, Any],
    found: Sequence[dict[str, Any]],
    task: str,
    federated: bool = False,
) -> NDArray[np.float64]:
    """Precision of what was found.

    Args:
        truth: the content of a COCO or LVIS json.
        found: COCO's results: ``image_id``, ``category_id``, ``score``, ``bbox`` ([x, y, w, h]
            pixels) and ``segmentation`` (a run-length code).
        task: ``bbox`` or ``segm``, what is compared.
        federated: LVIS's rules: what is found of a class counts only in images that were searched
            for it, and where its objects were not all marked it costs nothing.

    Returns:
        (10, 101, C, 4) precision at IoU 0.5 to 0.95, at recall 0 to 1, of the classes by rising
        ``id``, of objects of any, small, medium and large size; -1 where there is no object.
    """
    other = {"bbox": "segmentation", "segm": "bbox"}[task]
    truth, found = _with_numbers(truth, found)
    if federated:
        found = _searched(truth, _best_of_each_image(found, MAX_DETECTIONS_LVIS))
    # Both libraries write into what they are given, and an object of id 0 would count as unmatched.
    objects = [{**item, "id": number} for number, item in enumerate(truth["annotations"], 1)]
    # The size of what was found is that of what is compared.
    results = [{key: value for key, value in item.items() if key != other} for item in found]
    ground_truth = COCO({**truth, "annotations": objects})
    evaluation = COCOeval_faster(
        ground_truth, ground_truth.loadRes(results), task, lvis_style=federated
    )
    evaluation.params.maxDets = [MAX_DETECTIONS_LVIS if federated else MAX_DETECTIONS]
    classes = evaluation.params.catIds
    step = max(1, _MAX_PAIRS // max(1, len(evaluation.params.imgIds)))
    parts = []
    for start in range(0, len(classes), step):
        evaluation.params.catIds = classes[start : start + step]
        evaluation.evaluate()
        evaluation.accumulate()
        parts.append(np.asarray(evaluation.eval["precision"])[..., -1])
    return np.concatenate(parts, axis=2)


def _with_numbers(
    truth: dict[str, Any], found: Sequence[dict[str, Any]]
) -> tuple[dict[str, Any], Sequence[dict[str, Any]]]:
    """Both with numbers for ids of images that are text, as ADE20K's; the library takes none."""
    ids = [row["id"] for row in truth["images"]]
    if all(isinstance(image_id, int) for image_id in ids):
        return truth, found
    numbers = {image_id: number for number, image_id in enumerate(sorted(ids), 1)}
    images = [{**row, "id": numbers[row["id"]]} for row in truth["images"]]
    objects, found = (
        [{**row, "image_id": numbers[row["image_id"]]} for row in rows]
        for rows in (truth["annotations"], found)
    )
    return {**truth, "images": images, "annotations": objects}, found


def average_precision(
    precision: NDArray[np.float64], groups: Mapping[str, Sequence[int]]
) -> dict[str, float]:
    """Means of precision.

    Args:
        precision: (10, 101, C, 4) as :func:`match_objects` gives it.
        groups: {metric: class indices} of which the mean is wanted, too.

    Returns:
        In percent ``AP`` (mean over IoU 0.5 to 0.95 and classes), ``AP50``, ``AP75``, ``APs``,
        ``APm``, ``APl`` (by size) and the groups; what does not occur is left out.
    """
    values = {"AP": precision[..., 0], "AP50": precision[0, ..., 0], "AP75": precision[5, ..., 0]}
    for number, size in enumerate(_SIZES[1:], 1):
        values[f"AP{size}"] = precision[..., number]
    for metric, classes in groups.items():
        values[metric] = precision[:, :, list(classes), 0]
    means = {metric: _mean(value) for metric, value in values.items()}
    return {metric: mean for metric, mean in means.items() if mean is not None}


def average_precision_by_class(
    precision: NDArray[np.float64], names: Sequence[str]
) -> dict[str, float]:
    """AP in percent of each class that occurs.

    Args:
        precision: (10, 101, C, 4) as :func:`match_objects` gives it.
        names: C.
    """
    means = {name: _mean(precision[:, :, number, 0]) for number, name in enumerate(names)}
    return {name: mean for name, mean in means.items() if mean is not None}


def _mean(precision: NDArray[np.float64]) -> float | None:
    """In percent; -1 stands for "no such object"."""
    known = precision[precision > -1]
    return 100 * float(np.mean(known)) if known.size else None


def _best_of_each_image(found: Sequence[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """The best scored of each image; of equal ones the first."""
    images = defaultdict(list)
    for item in found:
        images[item["image_id"]].append(item)
    return [
        item
        for here in images.values()
        for item in sorted(here, key=lambda item: item["score"], reverse=True)[:number]
    ]


def _searched(truth: dict[str, Any], found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was found of classes that the image is known to have or to lack.

    faster-coco-eval would leave out the rest, too, but fails on images without an object.
    """
    pairs = {(item["image_id"], item["category_id"]) for item in truth["annotations"]}
    for image in truth["images"]:
        pairs |= {(image["id"], number) for number in image.get("neg_category_ids", ())}
    return [item for item in found if (item["image_id"], item["category_id"]) in pairs]
