import math

import pytest
import torch
from torch import nn

from semsam.engine import HookBase, SimpleTrainer


class Line(nn.Module):
    """Fits y = w x + b; a batch is a list of (x, y)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(1, 1)

    def forward(self, batch):
        x, y = torch.tensor(batch, device=self.linear.weight.device).T
        error = self.linear(x[:, None])[:, 0] - y
        return {"loss_square": (error**2).mean(), "loss_small": 0.1 * error.abs().mean()}


BATCHES = [[(1.0, 2.0), (2.0, 4.0)], [(3.0, 6.0), (0.5, 1.0)]] * 50


def trainer(model=None, batches=BATCHES, lr=0.02, **settings):
    model = model or Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return SimpleTrainer(model, batches, optimizer, **settings)


class Recorder(HookBase):
    def __init__(self):
        self.calls = []

    def before_train(self):
        self.calls.append(("before_train", self.trainer.iter))

    def before_step(self):
        self.calls.append(("before_step", self.trainer.iter))

    def after_step(self):
        self.calls.append(("after_step", self.trainer.iter))

    def after_train(self):
        self.calls.append(("after_train", self.trainer.iter))


def test_hooks_run_around_the_steps_of_a_run_that_starts_in_the_middle():
    run, hook = trainer(), Recorder()
    run.register_hooks([hook])
    run.train(5, 7)
    assert hook.calls == [
        ("before_train", 5),
        ("before_step", 5),
        ("after_step", 5),
        ("before_step", 6),
        ("after_step", 6),
        ("after_train", 7),
    ]


def test_training_lowers_the_loss():
    run = trainer()
    run.train(0, 2)
    before = run.storage.take()["total_loss"]
    run.train(2, 60)
    run.storage.take()
    run.train(60, 62)
    assert run.storage.take()["total_loss"] < 0.05 * before


def test_total_loss_is_the_sum_of_the_named_losses():
    run = trainer()
    run.train(0, 1)
    scalars = run.storage.take()
    assert scalars["total_loss"] == pytest.approx(scalars["loss_square"] + scalars["loss_small"])
    assert scalars["data_time"] >= 0


def test_accumulation_over_two_halves_equals_one_step_on_the_whole():
    whole = trainer(batches=[BATCHES[0] + BATCHES[1]])
    parts = trainer(batches=BATCHES[:2], grad_accumulation=2)
    for run in (whole, parts):
        run.train(0, 1)
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_gradient_is_clipped_to_the_norm_asked_for():
    free, clipped = trainer(lr=1.0), trainer(lr=1.0, max_grad_norm=0.01)
    start = [p.detach().clone() for p in free.model.parameters()]
    moved = []
    for run in (free, clipped):
        run.train(0, 1)
        step = [p.detach() - s for p, s in zip(run.model.parameters(), start, strict=True)]
        moved.append(torch.cat([s.flatten() for s in step]))
    assert moved[1].norm().item() == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(moved[1] / 0.01, moved[0] / moved[0].norm(), rtol=1e-3, atol=1e-5)
    assert clipped.storage.take()["grad_norm"] == pytest.approx(moved[0].norm().item(), rel=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_training_before_it_reaches_the_weights(bad):
    run = trainer(batches=[BATCHES[0], [(1.0, bad)]])
    message = r"at iteration 1 .*loss_square (nan|inf), loss_small (nan|inf)"
    with pytest.raises(FloatingPointError, match=message):
        run.train(0, 2)
    assert all(p.isfinite().all() for p in run.model.parameters())


class Root(nn.Module):
    """Finite at zero, where its gradient is not."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batch):
        return {"loss": self.weight.sqrt().sum()}


def test_a_gradient_that_is_not_finite_stops_training():
    run = trainer(Root(), max_grad_norm=1.0)
    with pytest.raises(FloatingPointError, match="gradient at iteration 0"):
        run.train(0, 1)
    assert run.model.weight.item() == 0


def test_a_gradient_that_is_not_finite_is_found_also_where_none_is_clipped():
    with pytest.raises(FloatingPointError, match="gradient at iteration 0"):
        trainer(Root()).train(0, 1)


@pytest.mark.parametrize("norm", [0.0, 1.0])
def test_a_gradient_that_overflows_float16_is_skipped_and_the_scale_lowered(norm):
    run = trainer(Root(), amp_dtype=torch.float16, max_grad_norm=norm)
    before = run.scaler.get_scale()
    run.train(0, 1)
    assert run.model.weight.item() == 0
    assert run.scaler.get_scale() < before


class Named(nn.Module):
    """The loss is the number of each record."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, batch):
        good = self.weight * 0.5
        return {"loss_good": good, "loss_bad": self.weight * sum(r["number"] for r in batch)}


def test_the_images_and_only_the_losses_that_are_not_finite_are_named():
    good = [{"file_name": "a.jpg", "number": 1.0}]
    bad = [{"file_name": "b.jpg", "number": 1.0}, {"file_name": "c.jpg", "number": math.inf}]
    run = trainer(Named(), [good, bad])
    message = r"iteration 1 .*: rank 0: loss_bad inf \(images: b.jpg, c.jpg\); the weights"
    with pytest.raises(FloatingPointError, match=message):
        run.train(0, 2)


class Half(Line):
    def forward(self, batch):
        self.seen = self.linear(torch.ones(1, 1)).dtype
        return super().forward(batch)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_computes_in_the_dtype_and_keeps_float32_weights(dtype):
    run = trainer(Half(), amp_dtype=dtype, max_grad_norm=1.0)
    run.train(0, 20)
    assert run.model.seen == dtype
    assert run.model.linear.weight.dtype == torch.float32
    assert run.scaler.is_enabled() == (dtype == torch.float16)
    first, *_, last = losses_of(trainer(Half(), amp_dtype=dtype, max_grad_norm=100.0))
    assert last < 0.5 * first


def losses_of(run, steps=20):
    losses = []
    for step in range(steps):
        run.train(step, step + 1)
        losses.append(run.storage.take()["total_loss"])
    return losses
