"""Losses of masks in the space of a text encoder: no choice among masks, no weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from semsam.config import CfgNode, configurable
from semsam.structures import Instances, TextPrediction
from semsam.utils.comm import all_gather_numbers, all_gather_rows, get_rank

#: Cosine from which two vectors are of one name; those of different names are far below it, and
#: rounding (a name that was encoded in another batch, stored in half precision) stays above.
SAME_NAME = 0.999


class NameSpace(NamedTuple):
    """A space of names, in which masks are predicted.

    Attributes:
        field: of the instances, (M, D) the true names; a vector of zeros is no name.
        suffix: of the losses.
        embeddings: (B, N, K, D) unit-norm.
        cosines: (B, N, K) predicted cosines; None if there are none.
    """

    field: str
    suffix: str
    embeddings: Tensor
    cosines: Tensor | None


def name_spaces(text: TextPrediction) -> list[NameSpace]:
    """The names of whole things, ``gt_text_embeddings``, and of parts, ``gt_part_embeddings``."""
    spaces = [NameSpace("gt_text_embeddings", "", text.embeddings, text.cosines)]
    if text.parts is not None:
        spaces.append(NameSpace("gt_part_embeddings", "_part", text.parts, None))
    return spaces


class NameLosses:
    """What the names of masks cost.

    Args:
        contrastive_weight: of ``loss_contrastive``.
        cosine_weight: of ``loss_cosine``, the squared error of the predicted cosine.
        gather: contrast with the names and masks of all ranks.
        shared_names: regions of one name are positives of each other.
    """

    @configurable
    def __init__(
        self,
        contrastive_weight: float = 2.0,
        cosine_weight: float = 1.0,
        gather: bool = True,
        shared_names: bool = True,
    ) -> None:
        self.contrastive_weight = contrastive_weight
        self.cosine_weight = cosine_weight
        self.gather = gather
        self.shared_names = shared_names

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read ``MODEL.TEXT_CLASS``."""
        node = cfg.MODEL.TEXT_CLASS
        return {
            "contrastive_weight": node.CONTRASTIVE_WEIGHT,
            "cosine_weight": node.COSINE_WEIGHT,
            "gather": node.GATHER,
            "shared_names": node.SHARED_NAMES,
        }

    def __call__(
        self,
        embeddings: Tensor,
        cosines: Tensor | None,
        names: Tensor,
        scale: Tensor,
        competing: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Weighted losses of the K masks of each of S regions; with ``gather`` all ranks call.

        Args:
            embeddings: (S, K, D) unit-norm.
            cosines: (S, K) predicted; None for no loss of them.
            names: (S, D), none of them zero.
            scale: scalar; a cosine times it is a logit.
            competing: (S, K) bool, masks that count; all if None.

        Returns:
            (S, K) by name, in float32.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings, names = embeddings.float(), F.normalize(names.float(), dim=-1)
            from_names, from_masks = contrastive_terms(
                embeddings, names, scale.float(), competing, self.gather, self.shared_names
            )
            both = (from_names[:, None] + from_masks) / 2
            terms = {"loss_contrastive": self.contrastive_weight * both}
            if cosines is not None:
                error = cosine_error(cosines.float(), embeddings, names)
                terms["loss_cosine"] = self.cosine_weight * error
        return terms


def true_names(space: NameSpace, instances: Instances) -> Tensor:
    """(M, D) vectors of the names of one image's instances; zeros where it knows none.

    Raises:
        ValueError: if they have other channels than the predictions.
    """
    dim = space.embeddings.shape[-1]
    if not instances.has(space.field):
        return torch.zeros(len(instances), dim, device=space.embeddings.device)
    names = instances.get(space.field)
    if names.shape[-1] != dim:
        raise ValueError(
            f"{space.field} has {names.shape[-1]} channels, the model's embeddings {dim}: they "
            "come from another text encoder than the model's"
        )
    return names.float()


def contrastive_terms(
    embeddings: Tensor,
    targets: Tensor,
    scale: Tensor,
    competing: Tensor | None = None,
    gather: bool = True,
    shared_names: bool = True,
) -> tuple[Tensor, Tensor]:
    """Both directions of a contrastive loss: from each name to masks, from each mask to names.

    All masks that compete for a region are positives of its name: the probability that a name
    finds them is a product over them. The loss of a region is half the sum of both directions.

    Args:
        embeddings: (S, K, D) unit-norm, the K masks of each of S regions.
        targets: (S, D) unit-norm, the name of each region.
        scale: scalar; a cosine times it is a logit.
        competing: (S, K) bool, masks that count; all if None.
        gather: compare with the regions of all ranks, with gradients to them; every rank must call.
        shared_names: regions with the same vector are positives of each other, each with an equal
            share; else they are negatives.

    Returns:
        from_names: (S,).
        from_masks: (S, K); without meaning where a mask does not compete.
    """
    if competing is None:
        competing = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
    all_embeddings, all_targets, all_competing, first = embeddings, targets, competing, 0
    if gather:
        all_embeddings, all_targets = all_gather_rows(embeddings), all_gather_rows(targets)
        all_competing = all_gather_rows(competing.to(embeddings)) > 0
        counts = all_gather_numbers(len(targets), targets.device)
        first = int(sum(counts[: get_rank()])) if len(counts) > 1 else 0
    if shared_names:
        same = (targets @ all_targets.T >= SAME_NAME).to(targets)
    else:
        same = torch.zeros(len(targets), len(all_targets), device=targets.device)
    same = same.index_put(_own(len(targets), first, targets.device), targets.new_ones(()))
    same = same / same.sum(1, keepdim=True)

    logits = scale * torch.einsum("sd,tkd->stk", targets, all_embeddings)
    logits = logits.masked_fill(~all_competing, -torch.inf)
    found = logits.flatten(1).log_softmax(1).view_as(logits).masked_fill(~all_competing, 0)
    from_names = -(same[..., None] * found).sum((1, 2))

    logits = scale * torch.einsum("td,skd->stk", all_targets, embeddings)
    from_masks = -(same[..., None] * logits.log_softmax(1)).sum(1)
    return from_names, from_masks


def cosine_error(predicted: Tensor, embeddings: Tensor, targets: Tensor) -> Tensor:
    """Squared error of the cosine that is predicted between each mask and its name.

    Args:
        predicted: (S, K).
        embeddings: (S, K, D), of any length.
        targets: (S, D), of any length.

    Returns:
        (S, K); gradients reach the embeddings too, as in the original.
    """
    return (predicted - F.cosine_similarity(embeddings, targets[:, None], dim=-1)).square()


def _own(number: int, first: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where each region meets itself among those of all ranks."""
    rows = torch.arange(number, device=device)
    return rows, rows + first
