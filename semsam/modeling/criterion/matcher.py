"""Which of a prompt's K masks answers for which of the ground-truth masks under the click."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from semsam.config import CfgNode, configurable
from semsam.layers.point_sample import point_sample, sample_masks
from semsam.structures import (
    Instances,
    PromptOutput,
    PromptTargets,
    box_cxcywh_to_xyxy,
    box_xyxy_to_cxcywh,
)

from .losses import generalized_box_iou, pairwise_mask_bce, pairwise_mask_dice

# Stands for a cost that is not finite, so that an assignment exists and the loss shows the fault.
_WORST_COST = 1e6


@dataclass(frozen=True)
class Pairs:
    """R predictions of one image, each with its ground truth.

    Attributes:
        prompts: (R,) int64, index of the prompt.
        masks: (R,) int64, index among the prompt's K masks.
        targets: (R,) int64, index among the image's instances.
    """

    prompts: Tensor
    masks: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, item: slice) -> Pairs:
        return Pairs(self.prompts[item], self.masks[item], self.targets[item])


class LevelMatcher:
    """Assign each prompt's masks to the targets of that prompt, one to one, at least total cost.

    Objects that have boxes alone are compared by their boxes. Prompts are independent, so each
    solves its own small assignment and no cost between a prompt's masks and another prompt's
    targets is ever computed (Semantic-SAM, section 3.3).

    Args:
        bce_weight: of the mask's binary cross-entropy.
        dice_weight: of the mask's dice loss.
        box_weight: of the box's L1 distance; boxes count only where the decoder predicts them.
        giou_weight: of the box's negative generalised IoU.
    """

    @configurable
    def __init__(
        self,
        bce_weight: float = 5.0,
        dice_weight: float = 5.0,
        box_weight: float = 5.0,
        giou_weight: float = 2.0,
    ) -> None:
        self.bce_weight = bce_weight
        self.dice_weight = dice_weight
        self.box_weight = box_weight
        self.giou_weight = giou_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """A cost has the weight of the loss of its name."""
        node = cfg.MODEL.CRITERION
        return {
            "bce_weight": node.BCE_WEIGHT,
            "dice_weight": node.DICE_WEIGHT,
            "box_weight": node.BOX_WEIGHT,
            "giou_weight": node.GIOU_WEIGHT,
        }

    def __call__(
        self,
        output: PromptOutput,
        instances: Instances,
        targets: PromptTargets,
        points: Tensor,
        image: int = 0,
        more: Tensor | None = None,
    ) -> Pairs:
        """Match the prompts of one image.

        Args:
            output: predictions of a batch.
            instances: ``gt_boxes`` and, if known, ``gt_masks`` (M, h, w) bool of the image, in the
                network's input frame.
            targets: of n prompts, at most as many as the output's; padding comes after them.
            points: (P, 2) x, y in [0, 1] of the padded frame, at which masks are compared.
            image: position of the image in the batch.
            more: (n, K, L) that is added to the cost.

        Returns:
            Pairs by ascending prompt and mask; none for prompts that are not valid or have no
            target.
        """
        total = self.cost(output, instances, targets, points, image)
        cost = (total if more is None else total + more).cpu().numpy()
        levels = targets.levels.cpu().numpy()
        valid = output.valid[image].cpu().numpy()
        triplets = [np.zeros((3, 0), dtype=np.int64)]
        for prompt in np.flatnonzero(valid[: len(levels)]):
            columns = np.flatnonzero(levels[prompt] >= 0)
            masks, chosen = linear_sum_assignment(cost[prompt][:, columns])
            matched = levels[prompt][columns[chosen]]
            triplets.append(np.stack([np.full_like(masks, prompt), masks, matched]))
        pairs = torch.from_numpy(np.concatenate(triplets, axis=1)).to(output.scores.device)
        return Pairs(*pairs)

    @torch.no_grad()
    def cost(
        self,
        output: PromptOutput,
        instances: Instances,
        targets: PromptTargets,
        points: Tensor,
        image: int = 0,
    ) -> Tensor:
        """Cost of each of a prompt's K masks for each of its L levels; arguments as above.

        Returns:
            (n, K, L) float32, finite; meaningless where ``targets.levels`` is -1.
        """
        levels = targets.levels
        number, frame = len(levels), output.padded_size
        predicted = output.mask_logits[image, :number]
        cost = predicted.new_zeros(*predicted.shape[:2], levels.shape[1], dtype=torch.float32)
        if len(instances) == 0:
            return cost
        if instances.has("gt_masks"):
            cost += self._mask_cost(predicted, instances, levels, points, frame)
        elif output.boxes is None:
            raise ValueError("objects have no masks, and the decoder predicts no boxes to compare")
        if output.boxes is not None:
            boxes = output.boxes[image, :number, :, None].float()
            truth = relative_boxes(instances, frame)[levels][:, None]
            cost += self.box_weight * (boxes - truth).abs().sum(-1)
            cost -= self.giou_weight * generalized_box_iou(
                box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(truth)
            )
        return cost.nan_to_num(nan=_WORST_COST, posinf=_WORST_COST, neginf=-_WORST_COST)

    def _mask_cost(
        self,
        predicted: Tensor,
        instances: Instances,
        levels: Tensor,
        points: Tensor,
        frame: tuple[int, int],
    ) -> Tensor:
        """(n, K, L) of (n, K, h, w) logits for the masks of (n, L) levels."""
        logits = point_sample(predicted.flatten(0, 1)[None], points[None])[0]
        logits = logits.unflatten(0, predicted.shape[:2])
        everything = torch.arange(len(instances), device=points.device)
        sampled = sample_masks(
            instances.gt_masks, everything, points.expand(len(instances), -1, -1), frame
        )
        # Padding (-1) reads the last instance; its column is never used.
        wanted = sampled[levels]
        # Autocast would multiply in half precision and blur the differences that decide a match.
        with torch.autocast(logits.device.type, enabled=False):
            cost = self.bce_weight * pairwise_mask_bce(logits, wanted)
            return cost + self.dice_weight * pairwise_mask_dice(logits, wanted)


def relative_boxes(instances: Instances, frame_size: tuple[int, int]) -> Tensor:
    """Ground-truth boxes as decoders predict them.

    Args:
        instances: ``gt_boxes`` in pixels of the network's input frame.
        frame_size: (H, W) of the padded frame.

    Returns:
        (M, 4) cx, cy, w, h in [0, 1] of the padded frame.
    """
    boxes = instances.gt_boxes.tensor
    height, width = frame_size
    return box_xyxy_to_cxcywh(boxes / boxes.new_tensor([width, height, width, height]))
