import pytest
import torch

from semsam.config import get_cfg
from semsam.solver import build_lr_scheduler


def rates(iterations, **keys):
    """The learning rate at the start of each iteration, as a multiple of the base rate."""
    cfg = get_cfg()
    for key, value in keys.items():
        cfg.SOLVER[key] = value
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    scheduler = build_lr_scheduler(cfg, optimizer)
    found = []
    for _ in range(iterations):
        found.append(optimizer.param_groups[0]["lr"] / 2.0)
        optimizer.step()
        scheduler.step()
    return found


def test_multi_step_drops_at_its_milestones():
    found = rates(6, STEPS=(2, 4), GAMMA=0.1, WARMUP_ITERS=0)
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_warmup_rises_linearly_from_its_factor():
    found = rates(6, STEPS=(5,), GAMMA=0.5, WARMUP_ITERS=4, WARMUP_FACTOR=0.2)
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 0.5])


def test_cosine_falls_to_zero_at_the_end_and_stays():
    found = rates(
        7, LR_SCHEDULER_NAME="WarmupCosineLR", MAX_ITER=4, WARMUP_ITERS=1, WARMUP_FACTOR=0.0
    )
    half = 0.5**0.5
    assert found == pytest.approx([0, (1 + half) / 2, 0.5, (1 - half) / 2, 0, 0, 0], abs=1e-9)


def test_groups_keep_the_ratio_of_their_rates():
    cfg = get_cfg()
    cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS = (1,), 0
    parameters = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    optimizer = torch.optim.SGD(
        [{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 0.1}], lr=1.0
    )
    scheduler = build_lr_scheduler(cfg, optimizer)
    optimizer.step()
    scheduler.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.1, 0.01])


@pytest.mark.parametrize(
    ("keys", "message"),
    [({"LR_SCHEDULER_NAME": "StepLR"}, "WarmupMultiStepLR"), ({"STEPS": (4, 2)}, "increase")],
)
def test_a_schedule_that_cannot_be_built_is_named(keys, message):
    with pytest.raises(ValueError, match=message):
        rates(1, **keys)
