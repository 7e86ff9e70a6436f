"""Open-vocabulary SAM's objective: the best mask of a prompt learns its shape and its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semsam.config import CfgNode, configurable
from semsam.modeling.build import CRITERION
from semsam.structures import Instances, PromptOutput, PromptTargets

from .losses import mask_dice_loss, mask_focal_loss
from .pair_losses import mean_over_ranks, shrink_masks
from .text_losses import contrastive_terms, cosine_error

CHOICES = ("uncoupled", "coupled")
#: Added to areas in the dice loss, in cells.
_SMOOTHING = 1e-7


class _Known(NamedTuple):
    """What is known of some prompts of a batch, and what each of their masks costs.

    Attributes:
        rows: (S,) positions among all B x N prompts.
        terms: weighted losses (S, K) by name.
    """

    rows: Tensor
    terms: dict[str, Tensor]


@CRITERION.register
class OpenVocabularyCriterion(nn.Module):
    """Dice and focal loss of masks, their predicted quality, and a contrastive loss of names.

    An image may know masks, names, or both: photos of SA-1B have no names, boxes that a detector
    found have no masks. Each trains what it knows. Masks are compared over the whole frame at the
    resolution of the logits. ``TextClassHead`` has to be among the model's heads.

    Args:
        focal_weight: of ``loss_mask_focal``.
        dice_weight: of ``loss_mask_dice``.
        iou_weight: of ``loss_iou``, the squared error of the predicted quality.
        focal_gamma: of the focal loss.
        contrastive_weight: of ``loss_contrastive`` and, for names of parts, its ``_part``.
        cosine_weight: of ``loss_cosine``, the squared error of the predicted cosine.
        choice: which mask of a prompt learns. ``"uncoupled"``: the cheapest for its shape and, on
            its own, the cheapest for its name; ``"coupled"``: the cheapest for both together.
        all_levels: the masks of an ambiguous prompt compete whatever the prompt; else those that
            answer a prompt of its kind.
        gather: contrast with the names and masks of all ranks.
        shared_names: regions of one name are positives of each other.

    Raises:
        ValueError: if the choice is unknown.
    """

    @configurable
    def __init__(
        self,
        *,
        focal_weight: float = 20.0,
        dice_weight: float = 1.0,
        iou_weight: float = 1.0,
        focal_gamma: float = 2.0,
        contrastive_weight: float = 2.0,
        cosine_weight: float = 1.0,
        choice: str = "uncoupled",
        all_levels: bool = False,
        gather: bool = True,
        shared_names: bool = True,
    ) -> None:
        super().__init__()
        if choice not in CHOICES:
            raise ValueError(f"choice is '{choice}'; it must be one of {CHOICES}")
        self.focal_weight = focal_weight
        self.dice_weight = dice_weight
        self.iou_weight = iou_weight
        self.focal_gamma = focal_gamma
        self.contrastive_weight = contrastive_weight
        self.cosine_weight = cosine_weight
        self.choice = choice
        self.all_levels = all_levels
        self.gather = gather
        self.shared_names = shared_names

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read ``MODEL.CRITERION`` and ``MODEL.TEXT_CLASS``.

        Raises:
            ValueError: if the model has no ``TextClassHead``.
        """
        node, text, heads = cfg.MODEL.CRITERION, cfg.MODEL.TEXT_CLASS, cfg.MODEL.REGION_HEADS.NAMES
        if "TextClassHead" not in heads:
            raise ValueError(
                "OpenVocabularyCriterion trains TextClassHead: add it to MODEL.REGION_HEADS.NAMES, "
                f"which is {list(heads)}"
            )
        return {
            "focal_weight": node.BCE_WEIGHT,
            "dice_weight": node.DICE_WEIGHT,
            "iou_weight": node.IOU_WEIGHT,
            "focal_gamma": node.FOCAL_GAMMA,
            "contrastive_weight": text.CONTRASTIVE_WEIGHT,
            "cosine_weight": text.COSINE_WEIGHT,
            "choice": text.CHOICE,
            "all_levels": text.ALL_LEVELS,
            "gather": text.GATHER,
            "shared_names": text.SHARED_NAMES,
        }

    def forward(
        self,
        output: PromptOutput,
        instances: list[Instances],
        targets: list[PromptTargets],
    ) -> dict[str, Tensor]:
        """Weighted losses of a batch.

        Args:
            output: predictions of B images, with ``text``.
            instances: of each image those of ``gt_masks`` (M, h, w) bool in the network's input
                frame, ``gt_text_embeddings`` (M, D) of the names, and ``gt_part_embeddings`` (M, D)
                of the names of parts, that are known; a vector of zeros is no name.
            targets: ``seeds`` say which instance a prompt asks for.

        Returns:
            Scalars; each is a mean over the prompts of all ranks that know what it needs.

        Raises:
            ValueError: if the names have another number of channels than the embeddings.
        """
        assert output.text is not None, "the model has no TextClassHead"
        competing = self._competing(output).flatten(0, 1)
        groups = [
            self._shapes(output, instances, targets),
            self._names(output, instances, targets, competing, "gt_text_embeddings"),
        ]
        if output.text.parts is not None:
            groups.append(self._names(output, instances, targets, competing, "gt_part_embeddings"))
        costs = [_scatter(sum(g.terms.values()), g.rows, competing) for g in groups]  # type: ignore[arg-type]
        if self.choice == "coupled":
            costs = [torch.stack(costs).sum(0)] * len(groups)
        losses: dict[str, Tensor] = {}
        for group, cost in zip(groups, costs, strict=True):
            best = cost.masked_fill(~competing, torch.inf).argmin(1)[group.rows]
            normalizer = mean_over_ranks(len(best), best.device)
            for name, term in group.terms.items():
                losses[name] = term.gather(1, best[:, None]).sum() / normalizer
        return losses

    def mask_terms(self, logits: Tensor, scores: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Weighted losses of masks and of their predicted quality.

        Args:
            logits: (S, K, h, w).
            scores: (S, K) predicted IoU.
            truth: (S, h, w) bool.

        Returns:
            (S, K) each.
        """
        flat = logits.float().flatten(2)
        wanted = truth.flatten(1)[:, None].expand(flat.shape)
        overlap = ((flat > 0) & wanted).sum(-1)
        union = ((flat > 0) | wanted).sum(-1)
        quality = overlap / union.clamp(min=1)
        inside = wanted.float()
        return {
            "loss_mask_focal": self.focal_weight * mask_focal_loss(flat, inside, self.focal_gamma),
            "loss_mask_dice": self.dice_weight * mask_dice_loss(flat, inside, _SMOOTHING),
            "loss_iou": self.iou_weight * (scores.float() - quality).square(),
        }

    def _competing(self, output: PromptOutput) -> Tensor:
        """(B, N, K) bool, which masks of a prompt may learn."""
        if not self.all_levels and output.answering is not None:
            return output.answering
        competing = torch.zeros_like(output.scores, dtype=torch.bool)
        competing[..., list(output.level_order)] = True
        return competing

    def _shapes(
        self, output: PromptOutput, instances: list[Instances], targets: list[PromptTargets]
    ) -> _Known:
        size = (output.mask_logits.shape[-2], output.mask_logits.shape[-1])

        def cells(inst: Instances) -> Tensor:
            return shrink_masks(inst.gt_masks, output.padded_size, size)

        empty = torch.zeros(0, *size, dtype=torch.bool, device=output.scores.device)
        rows, truth = _known(output, instances, targets, "gt_masks", cells, empty)
        logits, scores = output.mask_logits.flatten(0, 1)[rows], output.scores.flatten(0, 1)[rows]
        return _Known(rows, self.mask_terms(logits, scores, truth))

    def _names(
        self,
        output: PromptOutput,
        instances: list[Instances],
        targets: list[PromptTargets],
        competing: Tensor,
        field: str,
    ) -> _Known:
        text = output.text
        assert text is not None
        parts = field == "gt_part_embeddings"
        predicted = text.parts if parts else text.embeddings
        assert predicted is not None

        def vectors(inst: Instances) -> Tensor:
            return inst.get(field).float()

        empty = torch.zeros(0, predicted.shape[-1], device=predicted.device)
        rows, truth = _known(output, instances, targets, field, vectors, empty)
        if truth.shape[1] != predicted.shape[-1]:
            raise ValueError(
                f"{field} has {truth.shape[1]} channels, the model's embeddings "
                f"{predicted.shape[-1]}: they come from another text encoder than the model's"
            )
        named = truth.any(1)
        rows, truth = rows[named], F.normalize(truth[named], dim=-1)
        with torch.autocast(predicted.device.type, enabled=False):
            embeddings = predicted.flatten(0, 1)[rows].float()
            scale = text.logit_scale.float()
            from_names, from_masks = contrastive_terms(
                embeddings, truth, scale, competing[rows], self.gather, self.shared_names
            )
            both = self.contrastive_weight * (from_names[:, None] + from_masks) / 2
            terms = {"loss_contrastive_part" if parts else "loss_contrastive": both}
            if text.cosines is not None and not parts:
                cosines = text.cosines.flatten(0, 1)[rows].float()
                error = cosine_error(cosines, embeddings, truth)
                terms["loss_cosine"] = self.cosine_weight * error
        return _Known(rows, terms)


def _known(
    output: PromptOutput,
    instances: list[Instances],
    targets: list[PromptTargets],
    field: str,
    read: Callable[[Instances], Tensor],
    empty: Tensor,
) -> tuple[Tensor, Tensor]:
    """Positions (S,) of the prompts of images that have a field, and its (S, ...) rows for them."""
    number = output.valid.shape[1]
    rows, truth = [torch.zeros(0, dtype=torch.long, device=output.valid.device)], []
    for image, (inst, target) in enumerate(zip(instances, targets, strict=True)):
        usable = output.valid[image][: len(target.seeds)] & (target.seeds >= 0)
        if inst.has(field) and bool(usable.any()):
            rows.append(image * number + usable.nonzero()[:, 0])
            truth.append(read(inst)[target.seeds[usable]])
    return torch.cat(rows), torch.cat(truth) if truth else empty


def _scatter(cost: Tensor, rows: Tensor, like: Tensor) -> Tensor:
    """Detached (S, K) costs in the table of all (B x N, K) masks, zeros elsewhere."""
    table = torch.zeros(like.shape, device=like.device)
    return table.index_copy(0, rows, cost.detach())
