"""Which of the named masks of a photo are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from semsam.modeling.text.classifier import BACKGROUND

from .amg_utils import non_maximum_suppression

#: (score of the class, stability, predicted IoU, predicted cosine similarity) -> total score, with
#: Umar's weights: stability counts twice where scores are added.
SCORINGS: dict[str, Callable[[float, float, float, float], float]] = {
    "sum": lambda score, stability, iou, cosine: score + 2 * stability + iou + cosine,
    "mul": lambda score, stability, iou, cosine: score * stability * iou * cosine,
    "log_sum": lambda score, stability, iou, _: (
        _log(score) + _log(stability) + _log(iou) + _log(stability)
    ),
    "exp_sum": lambda score, stability, iou, _: (
        math.exp(score) + math.exp(stability) + math.exp(iou) + math.exp(stability)
    ),
}
_KEYS = ("class_name", "class_score", "stability_score", "predicted_iou", "bbox", "area")


def filter_masks(
    records: Sequence[dict[str, Any]],
    image_size: Sequence[int],
    *,
    score_thresh: float = 0.2,
    pred_iou_thresh: float = 0.8,
    stability_score_thresh: float = 0.7,
    cosine_thresh: float = 0.2,
    box_thresh: float = 0.9,
    area_thresh: float = 0.9,
    scoring: str = "sum",
    total_score_thresh: float | None = None,
    nms: str = "global",
    nms_thresh: float = 0.7,
) -> list[dict[str, Any]]:
    """Drop what is of no class, uncertain, as large as the photo, or covered by a better mask.

    The steps and defaults are those of Umar's open-vocabulary SAM, but for the share of a box,
    whose width the original takes to be ``width - x``.

    Args:
        records: of ``AutomaticMaskGenerator`` with classes. ``predicted_cosine_similarity`` is 1
            where a model does not predict it. They stay as they are.
        image_size: (H, W).
        score_thresh: least score of the class.
        pred_iou_thresh: predicted IoU that a mask exceeds.
        stability_score_thresh: stability that it exceeds.
        cosine_thresh: predicted cosine similarity that it exceeds.
        box_thresh: share of the photo below which its box stays.
        area_thresh: share of the photo below which its area stays.
        scoring: one of ``SCORINGS``.
        total_score_thresh: least total score; None for any.
        nms: ``global``, or ``class`` to let boxes of one class alone compete.
        nms_thresh: of boxes that overlap by more than this IoU the best is kept.

    Returns:
        Copies with ``total_score``, the highest first.

    Raises:
        ValueError: if there is no such scoring or suppression, or a record lacks a key; names it.
    """
    if scoring not in SCORINGS:
        raise ValueError(f"scoring is one of {', '.join(SCORINGS)}, not '{scoring}'")
    if nms not in ("global", "class"):
        raise ValueError(f"nms is global or class, not '{nms}'")
    pixels = image_size[0] * image_size[1]
    kept = []
    for row, record in enumerate(records):
        if missing := [key for key in _KEYS if key not in record]:
            raise ValueError(f"mask {row} has no '{missing[0]}'")
        score, stability, iou = (float(record[key]) for key in _KEYS[1:4])
        cosine = float(record.get("predicted_cosine_similarity", 1.0))
        width, height = record["bbox"][2:]
        stays = (
            record["class_name"] != BACKGROUND
            and score >= score_thresh
            and iou > pred_iou_thresh
            and stability > stability_score_thresh
            and cosine > cosine_thresh
            and width * height / pixels < box_thresh
            and record["area"] / pixels < area_thresh
        )
        if stays:
            total = SCORINGS[scoring](score, stability, iou, cosine)
            if total_score_thresh is None or total >= total_score_thresh:
                kept.append({**record, "total_score": total})
    kept.sort(key=lambda record: -record["total_score"])
    names = [record["class_name"] for record in kept]
    chosen = non_maximum_suppression(
        [(x, y, x + w, y + h) for x, y, w, h in (record["bbox"] for record in kept)],
        [record["total_score"] for record in kept],
        nms_thresh,
        [names.index(name) for name in names] if nms == "class" else None,
    )
    return [kept[i] for i in sorted(chosen)]


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf
