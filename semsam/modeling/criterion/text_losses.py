"""Losses of masks in the space of a text encoder: no choice among masks, no weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from semsam.utils.comm import all_gather_numbers, all_gather_rows, get_rank

#: Cosine from which two vectors are of one name; those of different names are far below it, and
#: rounding (a name that was encoded in another batch, stored in half precision) stays above.
SAME_NAME = 0.999


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
