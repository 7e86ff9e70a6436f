"""A region head that predicts how well a mask follows its object's outline."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semsam.config import CfgNode, configurable
from semsam.layers.blocks import MLP
from semsam.modeling.build import REGION_HEAD
from semsam.structures import Instances, PromptOutput, PromptTargets

#: Width of the band along an outline, as a share of the frame's diagonal (Boundary IoU paper).
BAND = 0.02


def add_config(cfg: CfgNode) -> None:
    """Add the head's key to ``cfg``; called because the yaml names this file in IMPORTS."""
    cfg.MODEL.BOUNDARY_QUALITY = CfgNode({"WEIGHT": 1.0})


@REGION_HEAD.register
class BoundaryQualityHead(nn.Module):
    """Predicts the Boundary IoU of every mask (Cheng et al., CVPR 2021) from the mask's token.

    IoU forgives a loose outline on a large object; Boundary IoU does not. The target of a mask is
    its Boundary IoU, at the decoder's stride, with the ground truth of the prompt that it overlaps
    most.

    Args:
        token_dim: channels of the decoder's tokens.
        weight: of the loss.
    """

    #: The masks' own tokens are enough: the head asks the decoder for no further token.
    num_tokens = 0
    #: Its target is that of the masks.
    reads_masks = True

    @configurable
    def __init__(self, token_dim: int, weight: float = 1.0) -> None:
        super().__init__()
        self.predict = MLP(token_dim, token_dim, 1, 3)
        self.weight = weight

    @classmethod
    def from_config(cls, cfg: CfgNode, token_dim: int) -> dict[str, Any]:
        """Named arguments from ``MODEL.BOUNDARY_QUALITY``."""
        return {"token_dim": token_dim, "weight": cfg.MODEL.BOUNDARY_QUALITY.WEIGHT}

    def logits(self, output: PromptOutput) -> Tensor:
        """(B, N, K), one for each mask."""
        return self.predict(output.tokens[:, :, : output.num_masks]).squeeze(-1)

    def losses(
        self, output: PromptOutput, instances: list[Instances], targets: list[PromptTargets]
    ) -> dict[str, Tensor]:
        """Cross-entropy between the prediction and the masks' Boundary IoU, mean over masks."""
        logits = self.logits(output)
        quality = torch.zeros_like(logits)
        known = torch.zeros_like(logits, dtype=torch.bool)
        for i, (objects, target) in enumerate(zip(instances, targets, strict=True)):
            number = len(target.levels)
            if number and len(objects):
                masks = output.mask_logits[i, :number].detach() > 0
                truth = at_stride(objects.gt_masks, output.padded_size, masks.shape[-2:])
                quality[i, :number] = boundary_quality(masks, truth, target.levels)
                known[i, :number] = (target.levels >= 0).any(dim=1, keepdim=True)
        loss = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
        mean = (loss * known).sum() / known.sum().clamp(min=1)
        return {"loss_boundary_quality": self.weight * mean}

    def inference(self, output: PromptOutput) -> dict[str, Tensor]:
        """``boundary_scores`` (B, N, K) in [0, 1]."""
        return {"boundary_scores": self.logits(output).sigmoid()}


def at_stride(masks: Tensor, padded_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Ground truth in the frame of the mask logits.

    Args:
        masks: (M, h, w) bool, unpadded.
        padded_size: (H, W) in pixels of the padded frame.
        size: of the mask logits, which cover that frame.

    Returns:
        (M, *size) bool, true where most of a cell is covered.
    """
    height, width = masks.shape[-2:]
    padded = F.pad(masks.float(), (0, padded_size[1] - width, 0, padded_size[0] - height))
    return F.adaptive_avg_pool2d(padded, size) > 0.5


def outline(masks: Tensor) -> Tensor:
    """(..., h, w) bool -> the part of each mask that lies near its outline or the frame's edge."""
    height, width = masks.shape[-2:]
    radius = max(1, round(BAND * (height**2 + width**2) ** 0.5))
    outside = F.pad((~masks).float().reshape(-1, 1, height, width), (radius,) * 4, value=1.0)
    # A square window is the maximum along rows, then along columns.
    near = F.max_pool2d(outside, (1, 2 * radius + 1), stride=1)
    near = F.max_pool2d(near, (2 * radius + 1, 1), stride=1)
    return masks & (near.reshape(masks.shape) > 0)


def pairwise_iou(masks: Tensor, others: Tensor) -> Tensor:
    """(A, h, w) and (M, h, w) bool -> (A, M) IoU; 0 where both are empty."""
    first, second = masks.flatten(1).float(), others.flatten(1).float()
    intersection = first @ second.T
    union = first.sum(dim=1)[:, None] + second.sum(dim=1)[None] - intersection
    return intersection / union.clamp(min=1)


def boundary_quality(masks: Tensor, truth: Tensor, levels: Tensor) -> Tensor:
    """Boundary IoU of each mask with the answer to its prompt that it overlaps most.

    Args:
        masks: (N, K, h, w) bool.
        truth: (M, h, w) bool.
        levels: (N, L) indices into ``truth`` of the answers to each prompt, padded with -1.

    Returns:
        (N, K) float32; 0 for a prompt without an answer.
    """
    number, each = masks.shape[:2]
    flat = masks.flatten(0, 1)
    overlap = pairwise_iou(flat, truth).view(number, each, -1)
    boundary = pairwise_iou(outline(flat), outline(truth)).view(number, each, -1)
    missing = (levels < 0)[:, None].expand(-1, each, -1)
    index = levels.clamp(min=0)[:, None].expand(-1, each, -1)
    best = overlap.gather(2, index).masked_fill(missing, -1).argmax(dim=2, keepdim=True)
    return boundary.gather(2, index).masked_fill(missing, 0).gather(2, best).squeeze(2)
