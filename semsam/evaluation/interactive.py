"""How well one click finds masks: 1-IoU (Max, Oracle, all granularities) and number of clicks.

Every ground-truth mask gets one click; the average runs over the clicks (or, for granularities,
over the matched pairs) of the whole dataset, not over images. IoU is measured in the frame of the
network's input, as published. Shares are percentages.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semsam.config import CfgNode, configurable
from semsam.modeling.criterion.matcher import LevelMatcher
from semsam.structures import Instances, PromptOutput, box_xyxy_to_cxcywh

from .build import EVALUATOR
from .evaluator import DatasetEvaluator, Results, gather_by_image

#: Number of clicks (NoC) is 1 where the first click reaches the IoU, else this.
MAX_CLICKS = 20
NOC_THRESHOLDS = (0.5, 0.8, 0.85, 0.9)
RECALL_THRESHOLD = 0.5
#: COCO's sizes: least and (excluded) greatest area in pixels of the photo.
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, float("inf"))}


def mask_iou(masks: Tensor, truth: Tensor) -> Tensor:
    """IoU of each prompt's masks with the one mask that the prompt is about.

    Args:
        masks: (N, K, H, W) bool.
        truth: (N, H, W) bool.

    Returns:
        (N, K) float64; 0 where both masks are empty.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if masks.shape[:1] + masks.shape[2:] != truth.shape:
        raise ValueError(
            f"masks {tuple(masks.shape)} and ground truth {tuple(truth.shape)} are not of the same "
            "prompts and frame; set the records' height and width to the size of gt_masks"
        )
    number, each = masks.shape[:2]
    overlap = _areas(m & wanted for group, wanted in zip(masks, truth, strict=True) for m in group)
    union = _areas(masks.flatten(0, 1)) + _areas(truth).repeat_interleave(each) - overlap
    return (overlap.double() / union.clamp(min=1)).view(number, each).to(masks.device)


@EVALUATOR.register
class InteractiveEvaluator(DatasetEvaluator):
    """1-IoU "Max" and "Oracle" (Semantic-SAM, section 4), recall, and number of clicks.

    "max" takes of a click's K masks the one with the highest predicted IoU, "oracle" the one with
    the highest true IoU.
    """

    @configurable
    def __init__(self) -> None:
        self.reset()

    @classmethod
    def from_config(cls, cfg: CfgNode, dataset_name: str) -> dict[str, Any]:
        """Nothing depends on the configuration."""
        return {}

    def reset(self) -> None:
        """Forget what was taken in."""
        # (N, 3) of each image: IoU of the mask that scored best, of the best mask, and area.
        self._rows: dict[Any, np.ndarray] = {}

    def process(self, inputs: list[dict[str, Any]], outputs: list[Any]) -> None:
        """Take in a batch.

        Args:
            inputs: ``instances`` with ``gt_masks``, ``targets.seeds``, ``image_id``, and the
                photo's ``original_size`` if masks are not in its frame.
            outputs: ``instances`` with ``pred_masks`` and ``scores``, an entry a prompt.

        Raises:
            ValueError: if predicted and ground-truth masks are not in the same frame.
        """
        for record, output in zip(inputs, outputs, strict=True):
            predicted: Instances = output["instances"]
            seeds = record["targets"].seeds
            truth = record["instances"].gt_masks[seeds]
            iou = mask_iou(predicted.pred_masks, truth.to(predicted.pred_masks.device))
            chosen = predicted.scores.argmax(dim=1, keepdim=True)
            columns = [iou.gather(1, chosen)[:, 0], iou.amax(dim=1)]
            columns = [c.cpu() for c in columns] + [_photo_areas(record)[seeds]]
            self._rows[record["image_id"]] = torch.stack(columns, dim=1).numpy()

    def evaluate(self) -> Results:
        """Tasks "max" and "oracle"; metrics as in :func:`summarize`."""
        rows = np.concatenate(list(gather_by_image(self._rows).values()))
        return {
            "max": summarize(rows[:, 0], rows[:, 2]),
            "oracle": summarize(rows[:, 1], rows[:, 2]),
        }


@EVALUATOR.register
class GranularityEvaluator(DatasetEvaluator):
    """1-IoU at all granularities: a click's K masks against every mask under the click.

    Predictions and masks are paired as in training, one to one at the least cost of the losses;
    each pair counts with its IoU. The published code lacks the part that collects the masks under
    a click, so this is a reconstruction.

    Args:
        matcher: finds the pairs.
        points: (P, 2) x, y in [0, 1] of the padded frame, at which masks are compared; the same
            ones for all images, so that a result depends on nothing but the predictions.
    """

    @configurable
    def __init__(self, matcher: LevelMatcher, points: Tensor) -> None:
        self._matcher = matcher
        self._points = points
        self.reset()

    @classmethod
    def from_config(cls, cfg: CfgNode, dataset_name: str) -> dict[str, Any]:
        """The criterion's matching costs and number of points."""
        generator = torch.Generator().manual_seed(0)
        points = torch.rand(cfg.MODEL.CRITERION.NUM_POINTS, 2, generator=generator)
        return {"matcher": LevelMatcher(cfg), "points": points}

    def reset(self) -> None:
        """Forget what was taken in."""
        # (R, 2) of each image: IoU and area of each pair.
        self._rows: dict[Any, np.ndarray] = {}

    def process(self, inputs: list[dict[str, Any]], outputs: list[Any]) -> None:
        """Take in a batch.

        Args:
            inputs: ``instances`` with ``gt_masks`` and ``gt_boxes``, ``targets.levels``,
                ``image_id``, and ``original_size`` if masks are not in the photo's frame.
            outputs: ``padded_size``, and ``instances`` with ``pred_masks`` and ``mask_logits``, an
                entry a prompt; ``pred_boxes`` if the decoder predicts boxes.

        Raises:
            ValueError: if predicted and ground-truth masks are not in the same frame.
        """
        for record, output in zip(inputs, outputs, strict=True):
            prediction = _as_prompt_output(output)
            device = prediction.scores.device
            truth = record["instances"].to(device)
            targets = record["targets"].to(device)
            pairs = self._matcher(prediction, truth, targets, self._points.to(device))
            chosen = output["instances"].pred_masks[pairs.prompts, pairs.masks]
            iou = mask_iou(chosen[:, None], truth.gt_masks[pairs.targets])[:, 0]
            columns = [iou.cpu(), _photo_areas(record)[pairs.targets.cpu()]]
            self._rows[record["image_id"]] = torch.stack(columns, dim=1).numpy()

    def evaluate(self) -> Results:
        """Task "granularity"; metrics as in :func:`summarize`."""
        rows = np.concatenate(list(gather_by_image(self._rows).values()))
        return {"granularity": summarize(rows[:, 0], rows[:, 1])}


def summarize(iou: np.ndarray, areas: np.ndarray) -> dict[str, float]:
    """Averages over clicks (or pairs).

    Args:
        iou: (N,) in [0, 1], N at least 1.
        areas: (N,) of the ground truth in pixels of the photo.

    Returns:
        ``1-IoU`` (mean), ``recall`` (share with an IoU of at least 0.5), both in percent and for
        each of COCO's sizes that occurs; ``NoC@t``; ``clicks`` (N).
    """
    groups = {"": np.ones(len(iou), dtype=bool)}
    groups |= {f" {name}": (low <= areas) & (areas < high) for name, (low, high) in SIZES.items()}
    groups = {name: members for name, members in groups.items() if members.any()}
    result = {f"1-IoU{name}": 100 * iou[members].mean() for name, members in groups.items()}
    for name, members in groups.items():
        result[f"recall{name}"] = 100 * (iou[members] >= RECALL_THRESHOLD).mean()
    for threshold in NOC_THRESHOLDS:
        result[f"NoC@{threshold}"] = np.where(iou >= threshold, 1, MAX_CLICKS).mean()
    return {name: float(value) for name, value in result.items()} | {"clicks": len(iou)}


def _areas(masks: Iterable[Tensor]) -> Tensor:
    """(M,) int64 pixels of M (H, W) bool masks."""
    # To count a whole bool tensor is ten times faster on a CPU than to reduce two dimensions.
    counts = [torch.count_nonzero(mask) for mask in masks]
    return torch.stack(counts) if counts else torch.zeros(0, dtype=torch.int64)


def _photo_areas(record: dict[str, Any]) -> Tensor:
    """(M,) float64 areas of the ground-truth masks in pixels of the photo."""
    truth: Instances = record["instances"]
    height, width = record.get("original_size", truth.image_size)
    scale = height * width / (truth.image_size[0] * truth.image_size[1])
    return _areas(truth.gt_masks).double() * scale


def _as_prompt_output(output: dict[str, Any]) -> PromptOutput:
    """One image's predictions as the decoder gave them, as far as a matcher reads them."""
    instances: Instances = output["instances"]
    height, width = output["padded_size"]
    boxes = None
    if instances.has("pred_boxes"):
        boxes = instances.pred_boxes / instances.pred_boxes.new_tensor([width, height] * 2)
        boxes = box_xyxy_to_cxcywh(boxes)[None]
    number = len(instances)
    return PromptOutput(
        mask_logits=instances.mask_logits[None],
        scores=instances.scores[None],
        boxes=boxes,
        tokens=instances.scores.new_empty(1, number, 0, 0),
        valid=torch.ones(1, number, dtype=torch.bool, device=instances.scores.device),
        padded_size=(height, width),
    )
