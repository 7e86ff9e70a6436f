"""Loss terms as functions of tensors: no matching, no weights, no reduction over pairs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from semsam.layers.point_sample import point_sample

#: Called as ``torch.rand``: sizes, then ``device=``.
Rand = Callable[..., Tensor]

# Candidates outnumber the points that are kept; a third of the time goes into fresh memory for them
# if all masks are asked at once.
_MASKS_AT_A_TIME = 32


def mask_bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of masks at points.

    Args:
        logits: (R, P).
        targets: (R, P) in [0, 1].

    Returns:
        (R,) mean over the points.
    """
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1)


def mask_focal_loss(logits: Tensor, targets: Tensor, gamma: float, alpha: float = 0.25) -> Tensor:
    """Focal loss (Lin et al. 2017) of masks at points.

    Args:
        logits: (R, P).
        targets: (R, P) in [0, 1].
        gamma: how much less a point counts that is right already.
        alpha: weight of points inside the mask; those outside weigh ``1 - alpha``.

    Returns:
        (R,) mean over the points.
    """
    inside = logits.sigmoid()
    wrong = inside * (1 - targets) + (1 - inside) * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (weight * wrong**gamma * bce).mean(-1)


def mask_dice_loss(logits: Tensor, targets: Tensor, smoothing: float = 1.0) -> Tensor:
    """One minus the dice coefficient of masks at points.

    Args:
        logits: (R, P).
        targets: (R, P) in [0, 1].
        smoothing: points by which both areas and the overlap are widened.

    Returns:
        (R,) in [0, 1).
    """
    masks = logits.sigmoid()
    overlap = (masks * targets).sum(-1)
    return 1 - (2 * overlap + smoothing) / (masks.sum(-1) + targets.sum(-1) + smoothing)


def pairwise_mask_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """``mask_bce_loss`` of every prediction against every target.

    Args:
        logits: (..., K, P).
        targets: (..., L, P) in [0, 1].

    Returns:
        (..., K, L).
    """
    # bce(x, t) = softplus(x) - x t
    empty = F.softplus(logits).mean(-1, keepdim=True)
    return empty - logits @ targets.mT / logits.shape[-1]


def pairwise_mask_dice(logits: Tensor, targets: Tensor) -> Tensor:
    """``mask_dice_loss`` of every prediction against every target.

    Args:
        logits: (..., K, P).
        targets: (..., L, P) in [0, 1].

    Returns:
        (..., K, L).
    """
    masks = logits.sigmoid()
    areas = masks.sum(-1)[..., :, None] + targets.sum(-1)[..., None, :]
    return 1 - (2 * (masks @ targets.mT) + 1) / (areas + 1)


def generalized_box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Generalised IoU, with 1e-6 added to both denominators.

    Args:
        boxes: (..., 4) XYXY.
        others: (..., 4) XYXY in the same units; the two shapes broadcast.

    Returns:
        (...) in [-1, 1].
    """
    overlap = _area(
        torch.maximum(boxes[..., :2], others[..., :2]),
        torch.minimum(boxes[..., 2:], others[..., 2:]),
    )
    enclosing = _area(
        torch.minimum(boxes[..., :2], others[..., :2]),
        torch.maximum(boxes[..., 2:], others[..., 2:]),
    )
    areas = _area(boxes[..., :2], boxes[..., 2:]) + _area(others[..., :2], others[..., 2:])
    union = areas - overlap
    return overlap / (union + 1e-6) - (enclosing - union) / (enclosing + 1e-6)


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(-1)


def uncertain_points(
    logits: Tensor,
    num_points: int,
    oversample_ratio: float,
    importance_sample_ratio: float,
    rand: Rand = torch.rand,
) -> Tensor:
    """Draw points that prefer the places where a mask is undecided (PointRend, section 3.1).

    Args:
        logits: (R, h, w).
        num_points: P, points a mask.
        oversample_ratio: candidates, as a multiple of P.
        importance_sample_ratio: share of the points that are the candidates nearest to logit 0;
            the others are uniform.
        rand: source of uniform draws.

    Returns:
        (R, P, 2) x, y in [0, 1] of the map.
    """
    number, device = len(logits), logits.device
    important = int(importance_sample_ratio * num_points)
    candidates = rand(number, int(num_points * oversample_ratio), 2, device=device)
    chosen = []
    for some_logits, some_candidates in zip(
        logits.split(_MASKS_AT_A_TIME), candidates.split(_MASKS_AT_A_TIME), strict=True
    ):
        doubt = point_sample(some_logits[:, None], some_candidates)[:, 0].abs()
        nearest = doubt.topk(important, largest=False, sorted=False).indices
        chosen.append(some_candidates.gather(1, nearest[..., None].expand(-1, -1, 2)))
    points = torch.cat(chosen)
    if important == num_points:
        return points
    return torch.cat([points, rand(number, num_points - important, 2, device=device)], dim=1)
