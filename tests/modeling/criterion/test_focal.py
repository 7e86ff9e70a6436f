import torch

from semsam.modeling.criterion.losses import mask_bce_loss, mask_focal_loss


def test_without_focus_it_is_half_the_cross_entropy():
    logits, targets = torch.randn(3, 50), torch.rand(3, 50).round()
    focal = mask_focal_loss(logits, targets, gamma=0.0, alpha=0.5)
    torch.testing.assert_close(focal, mask_bce_loss(logits, targets) / 2)


def test_points_that_are_right_count_less():
    sure, unsure = torch.full((1, 10), 4.0), torch.zeros(1, 10)
    target = torch.ones(1, 10)
    shares = [
        mask_focal_loss(sure, target, gamma) / mask_focal_loss(unsure, target, gamma)
        for gamma in (0.0, 2.0)
    ]
    assert shares[1] < shares[0] / 100
