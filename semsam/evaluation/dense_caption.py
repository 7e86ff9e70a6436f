"""Dense captioning: boxes and captions found without a prompt, measured together.

Average precision as DenseCap defines it (Johnson, Karpathy and Fei-Fei, CVPR 2016, section 4.2),
with the details of its released evaluation:

- Ground-truth boxes of IoU 0.7 or more are merged: the box with most such neighbours and its
  neighbours become one box, their mean, with all their captions as references; then the rest alike.
- Found boxes are taken by falling score. Each is compared with the ground-truth box of highest IoU
  and takes it, at whatever IoU; a later one that has the same highest box is wrong.
- A box is right if its IoU reaches the threshold and METEOR is above its threshold, so that the
  METEOR threshold 0 asks for any common word.
- Precision is interpolated and read at recall 0, 0.01, ..., 1; the average runs over the 5 times 6
  pairs of thresholds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from semsam.config import CfgNode, configurable
from semsam.data.records import decode_regions
from semsam.structures import Boxes
from semsam.utils import comm

from .build import EVALUATOR
from .caption_java import meteor, meteor_command
from .evaluator import DatasetEvaluator, Results, gather_by_image
from .prediction_file import PredictionFile

logger = logging.getLogger(__name__)

TASK = "dense captions"
#: What a line of the file has: of an image, what was found and the ground truth.
KEYS = ("image_id", "boxes", "scores", "captions", "gt_boxes", "references")
IOU_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
METEOR_THRESHOLDS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
MERGE_IOU = 0.7
# Below any METEOR: boxes alone decide.
_NO_METEOR = -1.0
_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Match:
    """A found box and the ground-truth box that it is compared with.

    Attributes:
        score: of the found box.
        iou: with the ground-truth box; 0 if it overlaps none.
        first: whether no better scored box took that ground-truth box.
        candidate: the found caption.
        references: captions of the ground-truth box; none if it overlaps none.
    """

    score: float
    iou: float
    first: bool
    candidate: str
    references: list[str]


def merge_boxes(boxes: Tensor, captions: Sequence[Sequence[str]]) -> tuple[Tensor, list[list[str]]]:
    """Join boxes of one image that describe the same place.

    Args:
        boxes: (M, 4) XYXY pixels.
        captions: of each box.

    Returns:
        (G, 4) means of the groups, and the captions of each group.
    """
    near = box_iou(boxes, boxes) >= MERGE_IOU
    # A box without area has no IoU with itself.
    near.fill_diagonal_(True)
    means, texts = [], []
    while near.any():
        group = near[near.sum(dim=1).argmax()].nonzero()[:, 0]
        means.append(boxes[group].mean(dim=0))
        texts.append([caption for i in group.tolist() for caption in captions[i]])
        near[group] = False
        near[:, group] = False
    return torch.stack(means) if means else boxes.new_zeros(0, 4), texts


def match_boxes(
    boxes: Tensor,
    scores: Tensor,
    captions: Sequence[str],
    truth: Tensor,
    references: Sequence[Sequence[str]],
) -> list[Match]:
    """Compare what was found in an image with its merged ground truth.

    Args:
        boxes: (N, 4) XYXY pixels.
        scores: (N,).
        captions: N.
        truth: (G, 4), in the same frame.
        references: of each of these.

    Returns:
        N, by falling score.
    """
    # A column of zeros, so that there is a nearest box even where there is no ground truth.
    iou = torch.cat([box_iou(boxes, truth), boxes.new_zeros(len(boxes), 1)], dim=1).nan_to_num()
    overlaps, nearest = (values.tolist() for values in iou.max(dim=1))
    taken: set[int] = set()
    matches = []
    for found in scores.argsort(descending=True, stable=True).tolist():
        place = nearest[found] if overlaps[found] > 0 else None
        matches.append(
            Match(
                score=float(scores[found]),
                iou=overlaps[found],
                first=place is not None and place not in taken,
                candidate=captions[found],
                references=[] if place is None else list(references[place]),
            )
        )
        if place is not None:
            taken.add(place)
    return matches


def dense_caption_ap(matches: Sequence[Match], number: int) -> Results:
    """Average precision over a dataset.

    Args:
        matches: of all images.
        number: of merged ground-truth boxes, at least 1.

    Returns:
        In percent ``mAP`` and, for each threshold t of IoU, ``AP IoU t``: of the task "dense
        captions" (means over the METEOR thresholds), "any caption" (boxes alone decide), and
        "METEOR > t" for each threshold.

    Raises:
        RuntimeError: if Java or pycocoevalcap is missing.
    """
    matches = sorted(matches, key=lambda match: -match.score)
    overlap = np.array([match.iou if match.first else 0.0 for match in matches])
    quality = np.zeros(len(matches))
    # Nothing else can be right, whatever its caption.
    compared = [i for i, value in enumerate(overlap) if value >= min(IOU_THRESHOLDS)]
    if compared:
        candidates = [matches[i].candidate for i in compared]
        quality[compared] = meteor(candidates, [matches[i].references for i in compared]).each

    def column(least_qualities: Sequence[float]) -> dict[str, float]:
        found = {}
        for least in IOU_THRESHOLDS:
            rights = [(overlap >= least) & (quality > value) for value in least_qualities]
            values = [_average_precision(right, number) for right in rights]
            found[f"AP IoU {least}"] = 100 * float(np.mean(values))
        return {"mAP": float(np.mean(list(found.values()))), **found}

    return {
        TASK: column(METEOR_THRESHOLDS),
        "any caption": column([_NO_METEOR]),
        **{f"METEOR > {least}": column([least]) for least in METEOR_THRESHOLDS},
    }


def region_truth(record: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """The ``gt_boxes`` and ``references`` of a dataset's record, for the evaluator.

    Args:
        record: of regions, see ``semsam.data.records``.
        size: (height, width) of its photo.

    Raises:
        BadRecordError: as ``decode_regions``.
    """
    regions = decode_regions(record, size)
    return {"gt_boxes": torch.from_numpy(regions.boxes), "references": regions.phrases}


@EVALUATOR.register
class DenseCaptionEvaluator(DatasetEvaluator):
    """mAP of boxes with captions (DenseCap), as :func:`dense_caption_ap` computes it.

    Args:
        dataset_name: names the file of predictions, ``dense-predictions-<dataset>.jsonl``, with a
            json line an image.
        output_dir: where that file is written, see :class:`PredictionFile`.
        resume: read back what an interrupted evaluation has written, instead of deleting it. The
            predictions must be of the same model and dataset, which is not checked.

    Raises:
        RuntimeError: if Java or pycocoevalcap is missing.
    """

    @configurable
    def __init__(self, dataset_name: str, output_dir: str | Path, resume: bool = False) -> None:
        # Half a day of predictions should not end with this error.
        meteor_command()
        self._file = PredictionFile(output_dir, f"dense-predictions-{dataset_name}", KEYS)
        self._resume = resume
        # Matches, and the number of merged ground-truth boxes, of each image.
        self._images: dict[Any, tuple[list[Match], int]] = {}

    @classmethod
    def from_config(cls, cfg: CfgNode, dataset_name: str) -> dict[str, Any]:
        """``OUTPUT_DIR`` for the file of predictions, and ``TEST.CAPTION.RESUME``."""
        return {
            "dataset_name": dataset_name,
            "output_dir": cfg.OUTPUT_DIR,
            "resume": cfg.TEST.CAPTION.RESUME,
        }

    def reset(self) -> None:
        """Forget what was taken in, and delete the file or, to resume, read it.

        Raises:
            ValueError: if a line of the file is broken.
        """
        rows = self._file.start(self._resume)
        self._images = {row["image_id"]: _compare(row) for row in rows}
        if rows:
            logger.info("%d images were described before", len(self._images))

    def pending(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Records of images of which there is no prediction yet."""
        return [record for record in inputs if record["image_id"] not in self._images]

    def process(self, inputs: list[dict[str, Any]], outputs: list[Any]) -> None:
        """Take in a batch and write it; an image that is there already is left as it is.

        Args:
            inputs: ``file_name``, ``image_id``, ``gt_boxes`` (M boxes of the photo, XYXY pixels)
                and ``references`` (M lists of str).
            outputs: ``instances`` in the photo's frame with ``pred_boxes`` (N boxes), ``scores``
                (N,) and ``pred_captions`` (N str).

        Raises:
            ValueError: if there is not one entry of references a box, or one score a found box;
                names the file.
        """
        for record, output in zip(inputs, outputs, strict=True):
            row = _row(record, output["instances"])
            if row["image_id"] not in self._images:
                self._file.append([row])
                self._images[row["image_id"]] = _compare(row)

    def evaluate(self) -> Results:
        """The tasks of :func:`dense_caption_ap`, and the number of merged ``regions``.

        Raises:
            RuntimeError: if no image has a ground-truth box, or METEOR fails.
        """
        images = gather_by_image(self._images).values()
        number = sum(count for _, count in images)
        if number == 0:
            raise RuntimeError("no image has a ground-truth box: there is nothing to find")
        results: Results = {}
        if comm.is_main_process():
            results = dense_caption_ap([match for here, _ in images for match in here], number)
            results[TASK]["regions"] = number
        return comm.broadcast(results)


def _row(record: dict[str, Any], found: Any) -> dict[str, Any]:
    """What the file keeps of an image: what was found, and the truth to compare it with."""
    name, truth, references = record["file_name"], record["gt_boxes"], record["references"]
    if len(truth) != len(references):
        raise ValueError(f"'{name}': {len(truth)} gt_boxes, but references of {len(references)}")
    if found.scores.dim() != 1:
        raise ValueError(f"'{name}': one score a box is expected, got {tuple(found.scores.shape)}")
    return {
        "image_id": record["image_id"],
        "boxes": _as_tensor(found.pred_boxes).tolist(),
        "scores": found.scores.tolist(),
        "captions": list(found.pred_captions),
        "gt_boxes": _as_tensor(truth).tolist(),
        "references": [list(captions) for captions in references],
    }


def _compare(row: dict[str, Any]) -> tuple[list[Match], int]:
    """Matches of a row, and the number of its merged ground-truth boxes."""
    merged, texts = merge_boxes(_as_tensor(torch.tensor(row["gt_boxes"])), row["references"])
    boxes, scores = _as_tensor(torch.tensor(row["boxes"])), torch.tensor(row["scores"])
    return match_boxes(boxes, scores, row["captions"], merged, texts), len(merged)


def _average_precision(right: np.ndarray, number: int) -> float:
    """(N,) bool by falling score, of which ``number`` could be right -> average precision."""
    hits = np.cumsum(right)
    recall, precision = hits / number, hits / np.arange(1, len(right) + 1)
    reached = np.where(recall[:, None] >= _RECALLS, precision[:, None], 0.0)
    return float(reached.max(axis=0, initial=0.0).mean())


def _as_tensor(boxes: Boxes | Tensor) -> Tensor:
    """(N, 4) float32 on the CPU."""
    return (boxes if isinstance(boxes, Boxes) else Boxes(boxes)).tensor.cpu()
