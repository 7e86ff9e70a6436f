"""Panoptic quality (Kirillov et al., "Panoptic Segmentation", 2019).

A predicted segment matches one of the truth if they are of the same class and their IoU is above
0.5; pixels that the truth leaves unlabelled (void) are first taken out of the predicted one. No
segment then has two matches. PQ of a class is the sum of the IoU of its matches, divided by their
number plus half of the segments without one on either side: the product of SQ, the mean IoU of the
matches, and RQ. A predicted segment without match that lies for more than half in void or in crowds
of its class counts nowhere, and neither does a crowd. The numbers are those of COCO's panopticapi.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from semsam.config import CfgNode, configurable
from semsam.data import MetadataCatalog
from semsam.data.records import decode_segments
from semsam.utils import comm

from .build import EVALUATOR
from .evaluator import DatasetEvaluator, Results, format_table, gather_by_image

logger = logging.getLogger(__name__)

TASK = "panoptic_seg"
_VOID = 0


@EVALUATOR.register
class PanopticEvaluator(DatasetEvaluator):
    """PQ, SQ and RQ of all classes, of things (``PQ_th``) and of stuff (``PQ_st``).

    Args:
        class_names: C names, in the order of the numbers that segments have as ``category_id``.
        things: numbers of those that are things.
    """

    @configurable
    def __init__(self, class_names: Sequence[str], things: Sequence[int]) -> None:
        self._names = list(class_names)
        self._is_thing = np.isin(np.arange(len(self._names)), list(things))
        self.reset()

    @classmethod
    def from_config(cls, cfg: CfgNode, dataset_name: str) -> dict[str, Any]:
        """``stuff_classes`` and ``thing_dataset_id_to_contiguous_id`` of the metadata.

        Raises:
            ValueError: if the metadata lack one.
        """
        metadata = MetadataCatalog.get(dataset_name)
        for key in ("stuff_classes", "thing_dataset_id_to_contiguous_id"):
            if metadata.get(key) is None:
                raise ValueError(
                    f"dataset '{dataset_name}' does not say its {key}; call "
                    f"MetadataCatalog.get('{dataset_name}').set({key}=...)"
                )
        return {
            "class_names": metadata.stuff_classes,
            "things": list(metadata.thing_dataset_id_to_contiguous_id.values()),
        }

    def reset(self) -> None:
        """Forget what was taken in."""
        # (C', 5) of each image: class, and then the columns of ``match_segments``.
        self._counts: dict[Any, NDArray[np.float64]] = {}

    def process(self, inputs: list[dict[str, Any]], outputs: list[Any]) -> None:
        """Take in a batch.

        Args:
            inputs: ``image_id``, ``file_name``, ``pan_seg_file_name`` and ``segments_info``.
            outputs: ``panoptic_seg``: (H, W) ids of segments in the photo's frame, 0 for none, and
                a list of dicts with ``id`` and ``category_id`` (a number of a class), each.

        Raises:
            BadRecordError: if the file of the truth is missing or damaged.
            ValueError: if prediction and truth differ in size, or the segments of a map are not
                those of its list; names the file.
        """
        for record, output in zip(inputs, outputs, strict=True):
            try:
                found, found_info = output["panoptic_seg"]
                truth, truth_info = decode_segments(record), record["segments_info"]
                counts = match_segments(truth, truth_info, found, found_info, len(self._names))
            except ValueError as error:
                raise type(error)(f"'{record['file_name']}': {error}") from error
            seen = np.flatnonzero(counts.any(axis=1))
            self._counts[record["image_id"]] = np.column_stack([seen, counts[seen]])

    def evaluate(self) -> Results:
        """Task "panoptic_seg", in percent; ``PQ-NAME`` of each class that occurs or was predicted.

        Raises:
            RuntimeError: if there was no image on any rank.
        """
        totals = np.zeros((len(self._names), 4))
        for rows in gather_by_image(self._counts).values():
            totals[rows[:, 0].astype(int)] += rows[:, 1:]
        summary, classes = panoptic_quality(totals, self._names, self._is_thing)
        if comm.is_main_process():
            logger.info("'%s' by class, in percent:\n%s", TASK, format_table(classes))
        named = {f"PQ-{name}": value for name, value in classes["PQ"].items()}
        return {TASK: {**summary, **named}}


def match_segments(
    truth: NDArray[np.integer],
    truth_info: Sequence[Mapping[str, Any]],
    found: Any,
    found_info: Sequence[Mapping[str, Any]],
    num_classes: int,
) -> NDArray[np.float64]:
    """Count the matches of an image.

    Args:
        truth: (H, W) ids of segments, 0 for void.
        truth_info: of each segment ``id``, ``category_id`` and, if it is a crowd, ``iscrowd``.
        found: (H, W), as ``truth``, array or tensor.
        found_info: of each segment ``id`` and ``category_id``.
        num_classes: C.

    Returns:
        (C, 4) by class: matches, their summed IoU, predicted segments without match, segments of
        the truth without match.

    Raises:
        ValueError: if the maps differ in size, a segment has no pixel or is not listed, or a class
            is none.
    """
    found = found.cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
    if truth.shape != found.shape:
        raise ValueError(f"the prediction is {found.shape}, the truth {truth.shape}")
    truth_ids, found_ids, overlap = _overlap(truth, found)
    real = _classes("the truth", truth_ids, truth_info, num_classes)
    said = _classes("the prediction", found_ids, found_info, num_classes)
    crowds = {info["id"] for info in truth_info if info.get("iscrowd", 0)}
    real_areas, said_areas = overlap.sum(axis=1), overlap.sum(axis=0)
    in_void = overlap[truth_ids == _VOID].sum(axis=0)
    counts = np.zeros((num_classes, 4))
    unmatched = {int(i) for i in truth_ids if i != _VOID and i not in crowds}
    for column, found_id in enumerate(found_ids.tolist()):
        if found_id == _VOID:
            continue
        number = said[found_id]
        same = np.array([real.get(i) == number for i in truth_ids.tolist()])
        crowd = same & np.isin(truth_ids, list(crowds))
        union = real_areas + said_areas[column] - overlap[:, column] - in_void[column]
        iou = np.where(same & ~crowd, overlap[:, column] / np.maximum(union, 1), 0.0)
        best = int(iou.argmax())
        if iou[best] > 0.5:
            counts[number] += (1, iou[best], 0, 0)
            unmatched.remove(int(truth_ids[best]))
        else:
            ignored = in_void[column] + overlap[crowd, column].sum()
            counts[number, 2] += ignored / said_areas[column] <= 0.5
    for truth_id in unmatched:
        counts[real[truth_id], 3] += 1
    return counts


def panoptic_quality(
    counts: NDArray[np.float64], names: Sequence[str], is_thing: NDArray[np.bool_]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Percentages from counts.

    Args:
        counts: (C, 4), the columns of :func:`match_segments`.
        names: C.
        is_thing: (C,).

    Returns:
        The summary, and {column: {class: percentage}} of classes that occur or were predicted. A
        group of which none does is left out.
    """
    matches, iou, wrong, missed = counts.T
    weight = matches + wrong / 2 + missed / 2
    present = weight > 0
    quality = {
        "PQ": iou / np.maximum(weight, 0.5),
        "SQ": iou / np.maximum(matches, 1),
        "RQ": matches / np.maximum(weight, 0.5),
    }
    summary = {}
    for suffix, members in (
        ("", present),
        ("_th", present & is_thing),
        ("_st", present & ~is_thing),
    ):
        if members.any():
            for name, values in quality.items():
                summary[f"{name}{suffix}"] = 100 * float(values[members].mean())
    classes = {
        column: {names[i]: 100 * float(values[i]) for i in np.flatnonzero(present).tolist()}
        for column, values in quality.items()
    }
    return summary, classes


def _overlap(
    truth: NDArray[np.integer], found: NDArray[np.integer]
) -> tuple[NDArray[np.integer], NDArray[np.integer], NDArray[Any]]:
    """The ids of both maps, (T,) and (F,) rising, and the pixels of each pair, (T, F)."""
    first, second = truth.reshape(-1), found.reshape(-1)
    # Stretches in which neither changes: to sort every pixel takes ten times as long.
    changes = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(starts, append=first.size).astype(np.float64)
    truth_ids, rows = np.unique(first[starts], return_inverse=True)
    found_ids, columns = np.unique(second[starts], return_inverse=True)
    shape = len(truth_ids), len(found_ids)
    cells = rows * shape[1] + columns
    overlap = np.bincount(cells, weights=lengths, minlength=shape[0] * shape[1])
    return truth_ids, found_ids, overlap.reshape(shape)


def _classes(
    what: str, ids: NDArray[np.integer], info: Sequence[Mapping[str, Any]], num_classes: int
) -> dict[int, int]:
    """Class of each segment, whose list has to fit the ids of its map."""
    classes = {int(segment["id"]): int(segment["category_id"]) for segment in info}
    if len(classes) < len(info):
        raise ValueError(f"{what} lists a segment twice")
    present = set(ids.tolist()) - {_VOID}
    if differ := present ^ classes.keys():
        raise ValueError(
            f"segments {sorted(differ)} of {what} are in its map or in its list, not in both"
        )
    if outside := [number for number in classes.values() if not 0 <= number < num_classes]:
        raise ValueError(f"class {outside[0]} in {what}; there are {num_classes}")
    return classes
