"""Semantic segmentation: how well the class of every pixel is known."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from semsam.config import CfgNode, configurable
from semsam.data import MetadataCatalog
from semsam.data.records import decode_labels
from semsam.utils import comm

from .build import EVALUATOR
from .evaluator import DatasetEvaluator, Results, format_table

logger = logging.getLogger(__name__)

Counts = NDArray[np.int64]
#: Width of a boundary, as a share of the photo's diagonal (Cheng et al., "Boundary IoU", 2021).
BOUNDARY_RATIO = 0.02


@EVALUATOR.register
class SemSegEvaluator(DatasetEvaluator):
    """IoU, accuracy and boundary IoU of label maps.

    Pixels are counted over all images before anything is divided. ``mIoU``, ``mAcc`` and ``aAcc``
    are those of Semantic-Segment-Anything, which are mmsegmentation's:

    - pixels whose truth is ``ignore_label`` are left out; a truth that is no class counts against
      what is predicted there;
    - a class that neither occurs nor is predicted is left out of the mean; one that is predicted
      but does not occur has an IoU of 0, and no accuracy.

    ``mIoU present`` and ``fwIoU`` are detectron2's: a truth that is no class is left out, and the
    mean runs over classes that occur, the second weighted by their pixels. ``boundary mIoU`` is
    of the pixels within ``BOUNDARY_RATIO`` of a class's border; where the truth is ignored the
    prediction is taken to be, too, so that a region's border there is the same in both.

    Args:
        class_names: C names, in the order of their ids.
        ignore_label: of pixels that do not count.
        task: under which ``evaluate`` reports.

    Raises:
        ValueError: if two classes have the same name.
    """

    @configurable
    def __init__(
        self,
        class_names: Sequence[str],
        ignore_label: int = 255,
        task: str = "sem_seg",
    ) -> None:
        self._names = list(class_names)
        if twice := [name for name, count in Counter(self._names).items() if count > 1]:
            raise ValueError(f"two classes are called '{twice[0]}'; results go by name")
        self._ignore_label = ignore_label
        self._task = task
        self.reset()

    @classmethod
    def from_config(cls, cfg: CfgNode, dataset_name: str) -> dict[str, Any]:
        """``stuff_classes`` and ``ignore_label`` of the metadata.

        Raises:
            ValueError: if the dataset does not say what its classes are.
        """
        metadata = MetadataCatalog.get(dataset_name)
        if metadata.get("stuff_classes") is None:
            raise ValueError(
                f"dataset '{dataset_name}' has no class names; call "
                f"MetadataCatalog.get('{dataset_name}').set(stuff_classes=[...])"
            )
        return {
            "class_names": metadata.stuff_classes,
            "ignore_label": metadata.get("ignore_label", 255),
        }

    def reset(self) -> None:
        """Forget what was taken in."""
        number = len(self._names)
        self._images = 0
        # Rows: truth, the last one no class; columns: prediction.
        self._confusion: Counts = np.zeros((number + 1, number), dtype=np.int64)
        # Pixels of each class's boundary: in both, in the prediction, in the truth.
        self._boundary: Counts = np.zeros((3, number), dtype=np.int64)

    def process(self, inputs: list[dict[str, Any]], outputs: list[Any]) -> None:
        """Take in a batch.

        Args:
            inputs: ``file_name``, and the truth: ``sem_seg``, (H, W) labels, or what
                ``decode_labels`` reads.
            outputs: ``sem_seg``, (H, W) class ids or (C, H, W) scores of classes, each.

        Raises:
            BadRecordError: if the file of the truth is missing or damaged.
            ValueError: if prediction and truth differ in size, or what is predicted is no class;
                names the file.
        """
        for record, output in zip(inputs, outputs, strict=True):
            try:
                truth = record["sem_seg"] if "sem_seg" in record else decode_labels(record)
                found = _as_array(output["sem_seg"])
                self._add(_as_array(truth), found.argmax(axis=0) if found.ndim == 3 else found)
            except ValueError as error:
                raise type(error)(f"'{record['file_name']}': {error}") from error

    def evaluate(self) -> Results:
        """Percentages over all ranks: those of the class's description, and ``IoU-NAME`` of each.

        Raises:
            RuntimeError: if there was no image on any rank.
        """
        parts = comm.all_gather((self._images, self._confusion, self._boundary))
        if sum(images for images, _, _ in parts) == 0:
            raise RuntimeError("nothing was evaluated: the loader gave no usable image")
        confusion = np.sum([part for _, part, _ in parts], axis=0)
        boundary = np.sum([part for _, _, part in parts], axis=0)
        metrics, classes = sem_seg_metrics(confusion, boundary, self._names)
        if comm.is_main_process():
            logger.info("'%s' by class, in percent:\n%s", self._task, format_table(classes))
        named = {f"IoU-{name}": value for name, value in classes["IoU"].items()}
        return {self._task: {**metrics, **named}}

    def _add(self, truth: NDArray[np.integer], found: NDArray[np.integer]) -> None:
        number = len(self._names)
        if truth.shape != found.shape:
            raise ValueError(f"the prediction is {found.shape}, the truth {truth.shape}")
        if found.size and not 0 <= found.min() <= found.max() < number:
            wrong = int(found.min() if found.min() < 0 else found.max())
            raise ValueError(f"class {wrong} was predicted; there are {number}")
        counted = truth != self._ignore_label
        is_class = (truth >= 0) & (truth < number)
        # Two labels behind the classes: no class, and ignored.
        real = np.where(counted, np.where(is_class, truth, number), number + 1).astype(np.uint16)
        said = np.where(counted, found, number + 1).astype(np.uint16)
        cells = real[counted].astype(np.int64) * number + said[counted]
        counts = np.bincount(cells, minlength=self._confusion.size)
        self._confusion += counts.reshape(self._confusion.shape)
        self._boundary += _boundary_counts(real, said, number)
        self._images += 1


def sem_seg_metrics(
    confusion: Counts, boundary: Counts, class_names: Sequence[str]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Percentages from pixel counts.

    Args:
        confusion: (C + 1, C) pixels by truth (the last row is no class) and prediction.
        boundary: (3, C) pixels of boundaries: in both, in the prediction, in the truth.
        class_names: C names.

    Returns:
        The summary, and {column: {class: percentage}} without classes that have none.
    """
    both, real = np.diagonal(confusion), confusion[:-1].sum(axis=1)
    iou = _share(both, confusion.sum(axis=0) + real - both)
    accuracy = _share(both, real)
    strict_iou = _share(both, confusion[:-1].sum(axis=0) + real - both)
    boundary_iou = _share(boundary[0], boundary[1] + boundary[2] - boundary[0])
    present = real > 0
    summary = {
        "mIoU": _mean(iou),
        "mAcc": _mean(accuracy),
        "aAcc": _mean(_share(both.sum(), real.sum())),
        "mIoU present": _mean(strict_iou[present]),
        "fwIoU": _mean(_share((strict_iou[present] * real[present]).sum(), real.sum())),
        "boundary mIoU": _mean(boundary_iou),
    }
    columns = {"IoU": iou, "Acc": accuracy, "boundary IoU": boundary_iou}
    classes = {
        column: {
            name: 100 * float(value)
            for name, value in zip(class_names, values, strict=True)
            if not np.isnan(value)
        }
        for column, values in columns.items()
    }
    return summary, classes


def boundary_mask(labels: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Pixels whose distance to another label, or to the image's edge, is at most the boundary's.

    Distance counts steps to any of the eight neighbours; for each label alone this is the mask less
    its erosion, as Boundary IoU defines it.

    Args:
        labels: (H, W), less than 65535.

    Returns:
        (H, W).
    """
    height, width = labels.shape
    distance = max(1, round(BOUNDARY_RATIO * float(np.hypot(height, width))))
    edged = cv2.copyMakeBorder(labels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=65535)
    kernel = np.ones((2 * distance + 1, 2 * distance + 1), dtype=np.uint8)
    return (cv2.dilate(edged, kernel) != cv2.erode(edged, kernel))[1:-1, 1:-1]


def _boundary_counts(truth: NDArray[np.uint16], found: NDArray[np.uint16], number: int) -> Counts:
    """(3, C) pixels of each class's boundary: in both, in the prediction, in the truth."""
    in_truth, in_found = boundary_mask(truth), boundary_mask(found)
    parts = (found[in_truth & in_found & (truth == found)], found[in_found], truth[in_truth])
    return np.stack([np.bincount(part, minlength=number)[:number] for part in parts])


def _share(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """NaN where there is no whole."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(part / np.asarray(whole, dtype=np.float64))


def _mean(shares: NDArray[np.float64]) -> float:
    """Mean in percent of what is known; NaN where nothing is."""
    known = shares[~np.isnan(shares)]
    return 100 * float(known.mean()) if known.size else float("nan")


def _as_array(labels: Any) -> NDArray[np.integer]:
    return labels.cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
