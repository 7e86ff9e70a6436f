"""Losses of predictions that have been paired with their ground truth."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from semsam.config import CfgNode, configurable
from semsam.layers.point_sample import point_sample, sample_masks
from semsam.structures import Instances, PromptOutput, box_cxcywh_to_xyxy
from semsam.utils.comm import all_reduce_sum, get_world_size

from .losses import (
    Rand,
    generalized_box_iou,
    mask_bce_loss,
    mask_dice_loss,
    mask_focal_loss,
    uncertain_points,
)
from .matcher import Pairs, relative_boxes
from .text_losses import NameLosses, name_spaces, true_names

IOU_TARGETS = ("dice", "iou")


class Counts(NamedTuple):
    """Scalars: the number of pairs, and of those that have a mask."""

    pairs: Tensor
    masks: Tensor


class PairLosses:
    """Mask, box and quality losses of the pairs of a batch, for one decoder layer.

    Pairs of images whose objects have boxes alone have no losses of masks and of their quality.

    Args:
        bce_weight: of ``loss_mask_bce``.
        dice_weight: of ``loss_mask_dice``.
        box_weight: of ``loss_box``, the L1 distance in cx, cy, w, h.
        giou_weight: of ``loss_giou``.
        iou_weight: of ``loss_iou``, the squared error of the predicted quality.
        num_points: points a mask at which the mask losses are evaluated.
        oversample_ratio: see ``uncertain_points``.
        importance_sample_ratio: see ``uncertain_points``.
        iou_target: what the predicted quality should be. ``"dice"``: one minus the dice loss at
            the sampled points, through which the gradient also reaches the mask (as the released
            models were trained). ``"iou"``: the IoU of the thresholded mask over the whole frame,
            detached, measured at the resolution of the logits.
        focal_gamma: 0 for cross-entropy; else the focal loss takes its place and its weight, and is
            called ``loss_mask_focal`` (SAM: 2).
        names: what the names of masks cost, where a head predicts them; with its defaults if None.
        rand: source of uniform draws, called as ``torch.rand``.

    Raises:
        ValueError: for another ``iou_target`` or fewer than one point.
    """

    @configurable
    def __init__(
        self,
        bce_weight: float = 5.0,
        dice_weight: float = 5.0,
        box_weight: float = 5.0,
        giou_weight: float = 2.0,
        iou_weight: float = 1.0,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_sample_ratio: float = 0.75,
        iou_target: str = "dice",
        focal_gamma: float = 0.0,
        names: NameLosses | None = None,
        rand: Rand = torch.rand,
    ) -> None:
        if iou_target not in IOU_TARGETS:
            raise ValueError(f"iou_target is '{iou_target}'; it must be one of {IOU_TARGETS}")
        if num_points < 1:
            raise ValueError(f"num_points is {num_points}; it must be at least 1")
        if oversample_ratio < 1 or not 0 <= importance_sample_ratio <= 1:
            raise ValueError(
                f"oversample_ratio is {oversample_ratio}, importance_sample_ratio "
                f"{importance_sample_ratio}; they must be at least 1 and in [0, 1]"
            )
        self.bce_weight = bce_weight
        self.dice_weight = dice_weight
        self.box_weight = box_weight
        self.giou_weight = giou_weight
        self.iou_weight = iou_weight
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_sample_ratio = importance_sample_ratio
        self.iou_target = iou_target
        self.focal_gamma = focal_gamma
        self.names = names or NameLosses()
        self.rand = rand

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Read the keys under ``MODEL.CRITERION`` and ``MODEL.TEXT_CLASS``."""
        node = cfg.MODEL.CRITERION
        return {
            "bce_weight": node.BCE_WEIGHT,
            "dice_weight": node.DICE_WEIGHT,
            "box_weight": node.BOX_WEIGHT,
            "giou_weight": node.GIOU_WEIGHT,
            "iou_weight": node.IOU_WEIGHT,
            "num_points": node.NUM_POINTS,
            "oversample_ratio": node.OVERSAMPLE_RATIO,
            "importance_sample_ratio": node.IMPORTANCE_SAMPLE_RATIO,
            "iou_target": node.IOU_TARGET,
            "focal_gamma": node.FOCAL_GAMMA,
            "names": NameLosses(cfg),
        }

    @torch.no_grad()
    def draw_points(self, output: PromptOutput, pairs: list[Pairs]) -> Tensor:
        """Draw the points at which the masks of ``pairs``, those ``with_masks``, are compared.

        Returns:
            (R, P, 2) x, y in [0, 1] of the padded frame, images in order.
        """
        return uncertain_points(
            select_pairs(output.mask_logits, pairs),
            self.num_points,
            self.oversample_ratio,
            self.importance_sample_ratio,
            self.rand,
        )

    def __call__(
        self,
        output: PromptOutput,
        instances: list[Instances],
        pairs: list[Pairs],
        points: Tensor,
        counts: Counts,
    ) -> dict[str, Tensor]:
        """Weighted losses: sums over the pairs of all images, divided by their number.

        Args:
            output: one decoder layer's predictions.
            instances: ground truth of each image.
            pairs: of each image.
            points: (R, P, 2) from ``draw_points``, for the R pairs with masks.
            counts: of ``count_pairs``.

        Returns:
            Scalars by name; zeros that are connected to the graph where there is no pair.
        """
        shapes = with_masks(instances, pairs)
        logits = select_pairs(output.mask_logits, shapes)
        scores = select_pairs(output.scores, shapes).float()
        entropy, dice = self.mask_terms(logits, instances, shapes, points, output.padded_size)
        if self.iou_target == "dice":
            quality = 1 - dice
        else:
            quality = mask_iou(logits, instances, shapes, output.padded_size)
        name = "loss_mask_focal" if self.focal_gamma else "loss_mask_bce"
        losses = {
            name: self.bce_weight * entropy.sum() / counts.masks,
            "loss_mask_dice": self.dice_weight * dice.sum() / counts.masks,
            "loss_iou": self.iou_weight * (scores - quality).square().sum() / counts.masks,
        }
        if output.boxes is not None:
            boxes = select_pairs(output.boxes, pairs).float()
            truth = torch.cat(
                [
                    relative_boxes(inst, output.padded_size)[p.targets]
                    for inst, p in zip(instances, pairs, strict=True)
                    if len(p)
                ]
                or [boxes.detach()]
            )
            giou = generalized_box_iou(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(truth))
            losses["loss_box"] = self.box_weight * (boxes - truth).abs().sum() / counts.pairs
            losses["loss_giou"] = self.giou_weight * (1 - giou).sum() / counts.pairs
        return {**losses, **self._name_losses(output, instances, pairs)}

    def _name_losses(
        self, output: PromptOutput, instances: list[Instances], pairs: list[Pairs]
    ) -> dict[str, Tensor]:
        """Of masks whose ground truth has a name, a mean over those of all ranks."""
        losses: dict[str, Tensor] = {}
        if output.text is None:
            return losses
        for space in name_spaces(output.text):
            names = torch.cat(
                [
                    true_names(space, inst)[p.targets]
                    for inst, p in zip(instances, pairs, strict=True)
                ]
            )
            named = names.any(1)
            embeddings = select_pairs(space.embeddings, pairs)[named, None]
            cosines = None
            if space.cosines is not None:
                cosines = select_pairs(space.cosines, pairs)[named, None]
            terms = self.names(embeddings, cosines, names[named], output.text.logit_scale)
            normalizer = mean_over_ranks(len(embeddings), embeddings.device)
            for name, term in terms.items():
                losses[name + space.suffix] = term.sum() / normalizer
        return losses

    def mask_terms(
        self,
        logits: Tensor,
        instances: list[Instances],
        pairs: list[Pairs],
        points: Tensor,
        frame_size: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy (or focal loss) and dice loss of paired masks at points, without weights.

        Args:
            logits: (R, h, w) over the padded frame, images in order.
            instances: ground truth of each image.
            pairs: of each image, R together.
            points: (R, P, 2) x, y in [0, 1] of the padded frame.
            frame_size: (H, W) of the padded frame in pixels.

        Returns:
            (R,) each.
        """
        predicted = point_sample(logits[:, None], points)[:, 0]
        of_images = points.split([len(p) for p in pairs])
        truth = torch.cat(
            [
                sample_masks(inst.gt_masks, p.targets, at, frame_size)
                for inst, p, at in zip(instances, pairs, of_images, strict=True)
                if len(p)
            ]
            or [predicted.detach()]
        )
        if self.focal_gamma:
            entropy = mask_focal_loss(predicted, truth, self.focal_gamma)
        else:
            entropy = mask_bce_loss(predicted, truth)
        return entropy, mask_dice_loss(predicted, truth)


@torch.no_grad()
def mask_iou(
    logits: Tensor,
    instances: list[Instances],
    pairs: list[Pairs],
    frame_size: tuple[int, int],
) -> Tensor:
    """IoU of paired masks over the whole frame, at the resolution of the logits.

    Args:
        logits: (R, h, w) over the padded frame, images in order; a pixel is set where positive.
        instances: ground truth of each image.
        pairs: of each image, R together.
        frame_size: (H, W) of the padded frame in pixels.

    Returns:
        (R,); zero where both masks are empty.
    """
    size = (logits.shape[-2], logits.shape[-1])
    predicted = logits > 0
    truth = torch.cat(
        [
            shrink_masks(inst.gt_masks, frame_size, size)[p.targets] if len(p) else predicted[:0]
            for inst, p in zip(instances, pairs, strict=True)
        ]
    )
    overlap = (predicted & truth).count_nonzero(dim=(1, 2))
    union = (predicted | truth).count_nonzero(dim=(1, 2))
    return overlap / union.clamp(min=1)


def shrink_masks(masks: Tensor, frame_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Read (M, h, w) masks at the centres of the cells of a coarser grid over the frame."""
    small = masks.new_zeros(len(masks), *size)
    rows, columns = (
        ((torch.arange(cells, device=masks.device) + 0.5) * extent / cells).long()
        for cells, extent in zip(size, frame_size, strict=True)
    )
    rows, columns = rows[rows < masks.shape[1]], columns[columns < masks.shape[2]]
    small[:, : len(rows), : len(columns)] = masks[:, rows][:, :, columns]
    return small


def select_pairs(values: Tensor, pairs: list[Pairs]) -> Tensor:
    """(B, N, K, ...) -> (R, ...): the entries of the pairs, images in order."""
    _, prompts, masks = values.shape[:3]
    flat = [(b * prompts + p.prompts) * masks + p.masks for b, p in enumerate(pairs)]
    return values.flatten(0, 2).index_select(0, torch.cat(flat))


def with_masks(instances: list[Instances], pairs: list[Pairs]) -> list[Pairs]:
    """The pairs of each image whose objects have ``gt_masks``, none of others."""
    return [
        of_image if inst.has("gt_masks") else of_image[:0]
        for inst, of_image in zip(instances, pairs, strict=True)
    ]


def count_pairs(instances: list[Instances], pairs: list[Pairs], device: torch.device) -> Counts:
    """Numbers to divide losses by, as means over ranks; every rank calls."""
    shapes = with_masks(instances, pairs)
    numbers = [mean_over_ranks(sum(map(len, kind)), device) for kind in (pairs, shapes)]
    return Counts(*numbers)


def named_layers(output: PromptOutput) -> list[tuple[str, PromptOutput]]:
    """The last layer with an empty suffix, then each earlier one with ``_<i>``."""
    return [("", output), *((f"_{i}", layer) for i, layer in enumerate(output.aux))]


def mean_over_ranks(count: int, device: torch.device) -> Tensor:
    """The number of pairs, or of anything, on all ranks over the number of ranks; never 0.

    Gradients are averaged over ranks, so dividing by it gives every pair the same weight, also
    where there are fewer pairs than ranks.
    """
    total = all_reduce_sum(torch.tensor(float(count), device=device))
    return total.clamp(min=1) / get_world_size()
