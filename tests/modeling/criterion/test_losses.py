import math

import pytest
import torch

from semsam.modeling.criterion.losses import (
    generalized_box_iou,
    mask_bce_loss,
    mask_dice_loss,
    pairwise_mask_bce,
    pairwise_mask_dice,
    uncertain_points,
)

from .scenes import same_points_for_every_row


def test_mask_losses_of_an_undecided_mask():
    logits, targets = torch.zeros(1, 4), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert mask_bce_loss(logits, targets).item() == pytest.approx(math.log(2))
    # Half of each of four points: overlap 1, areas 2 and 2.
    assert mask_dice_loss(logits, targets).item() == pytest.approx(1 - 3 / 5)


def test_mask_losses_of_a_perfect_mask_vanish():
    targets = (torch.rand(3, 100) > 0.5).float()
    logits = 40 * (2 * targets - 1)
    assert mask_bce_loss(logits, targets).max() < 1e-6
    assert mask_dice_loss(logits, targets).max() < 1e-6


@pytest.mark.parametrize(
    ("pairwise", "paired"),
    [(pairwise_mask_bce, mask_bce_loss), (pairwise_mask_dice, mask_dice_loss)],
)
def test_pairwise_costs_hold_the_loss_of_every_pair(pairwise, paired):
    logits, targets = torch.randn(2, 3, 50) * 4, torch.rand(2, 5, 50)
    for i in range(3):
        for j in range(5):
            torch.testing.assert_close(
                pairwise(logits, targets)[:, i, j], paired(logits[:, i], targets[:, j])
            )


def test_generalized_iou_by_hand():
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    others = torch.tensor(
        [[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [4.0, 0.0, 6.0, 2.0], [1.0, 1.0, 1.0, 1.0]]
    )
    # Equal; a third shared; apart, with a gap as large as each box; a point.
    expected = torch.tensor([1.0, 1 / 3, -1 / 3, 0.0])
    torch.testing.assert_close(generalized_box_iou(boxes, others), expected, rtol=0, atol=1e-5)


def test_uncertain_points_gather_where_the_mask_is_undecided():
    # Undecided in the middle column, ever surer to the left and the right.
    logits = torch.linspace(-30, 30, 80).expand(2, 40, 80)
    points = uncertain_points(logits, 100, 3.0, 0.75, same_points_for_every_row)
    assert points.shape == (2, 100, 2)
    near = (points[..., 0] - 0.5).abs() < 0.2
    assert near[:, :75].all()
    assert not near[:, 75:].all()


def test_all_points_may_be_uncertain_ones():
    draws = []

    def rand(*shape, device):
        draws.append(shape)
        return torch.rand(*shape)

    assert uncertain_points(torch.randn(1, 8, 8), 10, 2.0, 1.0, rand).shape == (1, 10, 2)
    assert draws == [(1, 20, 2)]
