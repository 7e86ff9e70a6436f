"""Generic segmentation: what is in an image, from the classes and masks of its queries.

Semantic, instance and panoptic segmentation of one prediction, as Mask2Former (Cheng et al. 2022)
and Mask DINO (Li et al. 2022) read it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Scores of classes at pixels that are held at once: 64 MiB of float32.
CHUNK = 2**24


def semantic_classes(probabilities: Tensor, mask_logits: Tensor, chunk: int = CHUNK) -> Tensor:
    """The class of each pixel: the one that is seen most, over all queries.

    Args:
        probabilities: (Q, C) of each query's classes.
        mask_logits: (Q, H, W).
        chunk: scores that are held at once; 20,000 classes of a whole photo would fill 20 GiB.

    Returns:
        (H, W) int64.
    """
    weights = probabilities.T
    parts = mask_logits.flatten(1).split(max(chunk // len(weights), 1), dim=1)
    # Half a digit decides between like names: not in the precision of mixed training.
    with torch.autocast(mask_logits.device.type, enabled=False):
        found = [(weights @ part.sigmoid()).argmax(dim=0) for part in parts]
    return torch.cat(found).view(mask_logits.shape[1:])


def top_instances(probabilities: Tensor, mask_logits: Tensor, number: int) -> dict[str, Tensor]:
    """The most certain pairs of a query and a class.

    Args:
        probabilities: (Q, C) of each query's classes; 0 for classes that are no things.
        mask_logits: (Q, H, W).
        number: of instances, at most.

    Returns:
        ``queries``, ``classes`` (N,) int64 and ``scores`` (N,), best first: the class's probability
        times the mean probability of the mask's pixels.
    """
    scores, flat = probabilities.flatten().topk(min(number, probabilities.numel()))
    queries = flat // probabilities.shape[1]
    kept = scores > 0
    queries, classes, scores = queries[kept], (flat % probabilities.shape[1])[kept], scores[kept]
    logits = mask_logits[queries]
    inside = logits > 0
    quality = (logits.sigmoid() * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
    scores, order = (scores * quality).sort(descending=True, stable=True)
    return {"queries": queries[order], "classes": classes[order], "scores": scores}


def panoptic_segments(
    probabilities: Tensor,
    mask_logits: Tensor,
    is_thing: Tensor,
    object_mask_threshold: float = 0.25,
    overlap_threshold: float = 0.8,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Give each pixel to one segment or to none.

    Queries compete for pixels with the product of class and mask probability. One that keeps less
    than ``overlap_threshold`` of its mask is dropped (the originals count pixels that it wins
    outside its mask, too); stuff of one class is one segment.

    Args:
        probabilities: (Q, C) of each query's classes; what a row lacks to 1 is "nothing".
        mask_logits: (Q, H, W).
        is_thing: (C,) bool.
        object_mask_threshold: queries whose best class is less probable are dropped.
        overlap_threshold: see above.

    Returns:
        (H, W) int32 ids, 0 for none, and for each id from 1 on ``{"id", "isthing", "category_id",
        "score", "area"}``, the class being contiguous.
    """
    certainty, classes = probabilities.max(dim=1)
    nothing = 1 - probabilities.sum(dim=1)
    kept = (certainty > object_mask_threshold) & (certainty > nothing)
    ids = torch.zeros(mask_logits.shape[1:], dtype=torch.int32, device=mask_logits.device)
    segments: list[dict[str, Any]] = []
    if not bool(kept.any()):
        return ids, segments
    certainty, classes, masks = certainty[kept], classes[kept], mask_logits[kept].sigmoid()
    owner = (certainty[:, None, None] * masks).argmax(dim=0)
    stuff: dict[int, dict[str, Any]] = {}
    for query, category in enumerate(classes.tolist()):
        whole = masks[query] >= 0.5
        own = (owner == query) & whole
        area, total = int(own.sum()), int(whole.sum())
        if not area or area / total < overlap_threshold:
            continue
        thing = bool(is_thing[category])
        segment = None if thing else stuff.get(category)
        if segment is None:
            segment = {
                "id": len(segments) + 1,
                "isthing": thing,
                "category_id": category,
                "score": float(certainty[query]),
                "area": 0,
            }
            segments.append(segment)
            if not thing:
                stuff[category] = segment
        segment["area"] += area
        ids[own] = segment["id"]
    return ids, segments
