"""Open-vocabulary SAM's objective: the best mask of a prompt learns its shape and its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from semsam.config import CfgNode, configurable
from semsam.modeling.build import CRITERION
from semsam.structures import Instances, PromptOutput, PromptTargets

from .losses import mask_dice_loss, mask_focal_loss
from .pair_losses import mean_over_ranks, shrink_masks
from .text_losses import NameLosses, NameSpace, name_spaces, true_names

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
        names: what names cost; with its defaults if None.
        choice: which mask of a prompt learns. ``"uncoupled"``: the cheapest for its shape and, on
            its own, the cheapest for its name; ``"coupled"``: the cheapest for both together.
        all_levels: the masks of an ambiguous prompt compete whatever the prompt; else those that
            answer a prompt of its kind.

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
        names: NameLosses | None = None,
        choice: str = "uncoupled",
        all_levels: bool = False,
    ) -> None:
        super().__init__()
        if choice not in CHOICES:
            raise ValueError(f"choice is '{choice}'; it must be one of {CHOICES}")
        self.focal_weight = focal_weight
        self.dice_weight = dice_weight
        self.iou_weight = iou_weight
        self.focal_gamma = focal_gamma
        self.names = names or NameLosses()
        self.choice = choice
        self.all_levels = all_levels

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
            "names": NameLosses(cfg),
            "choice": text.CHOICE,
            "all_levels": text.ALL_LEVELS,
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
        groups = [self._shapes(output, instances, targets)]
        for space in name_spaces(output.text):
            groups.append(self._names(output, instances, targets, competing, space))
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
        space: NameSpace,
    ) -> _Known:
        assert output.text is not None

        def vectors(inst: Instances) -> Tensor:
            return true_names(space, inst)

        empty = torch.zeros(0, space.embeddings.shape[-1], device=space.embeddings.device)
        rows, names = _known(output, instances, targets, space.field, vectors, empty)
        named = names.any(1)
        rows, names = rows[named], names[named]
        embeddings = space.embeddings.flatten(0, 1)[rows]
        cosines = None if space.cosines is None else space.cosines.flatten(0, 1)[rows]
        scale = output.text.logit_scale
        terms = self.names(embeddings, cosines, names, scale, competing[rows])
        return _Known(rows, {name + space.suffix: term for name, term in terms.items()})


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
