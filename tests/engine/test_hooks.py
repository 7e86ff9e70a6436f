import json

import pytest
import torch
from torch import nn

from semsam.checkpoint.checkpointer import Checkpointer
from semsam.engine import (
    EvalHook,
    LRScheduler,
    PeriodicCheckpointer,
    PeriodicWriter,
    TrainerBase,
)
from semsam.engine.hooks import flatten_results
from semsam.utils.events import JSONWriter


class CountingTrainer(TrainerBase):
    """Its loss at iteration i is i."""

    def run_step(self):
        self.storage.put_scalar("total_loss", self.iter)


class ListWriter:
    def __init__(self):
        self.lines = []
        self.closed = False

    def write(self, iteration, scalars):
        self.lines.append((iteration, scalars))

    def close(self):
        self.closed = True


def test_lines_come_at_the_period_and_after_the_last_step():
    trainer, writer = CountingTrainer(), ListWriter()
    trainer.register_hooks([PeriodicWriter([writer], period=2)])
    trainer.train(0, 5)
    assert writer.lines == [
        (1, {"total_loss": 0.5}),
        (3, {"total_loss": 2.5}),
        (4, {"total_loss": 4.0}),
    ]
    assert writer.closed


@pytest.mark.parametrize(("period", "at"), [(0, [4]), (2, [2, 4]), (3, [3, 4])])
def test_evaluation_comes_at_the_period_and_once_at_the_end(period, at):
    trainer, done = CountingTrainer(), []

    def evaluate():
        done.append(trainer.iter + 1 if trainer.iter < 4 else 4)
        return {"scenes": {"interactive": {"iou": 50.0}}}

    writer = ListWriter()
    trainer.register_hooks([EvalHook(period, evaluate), PeriodicWriter([writer], period=1)])
    trainer.train(0, 4)
    assert done == at
    assert writer.lines[-1] == (4, {"scenes/interactive/iou": 50.0})


def test_nested_results_become_paths():
    assert flatten_results({"a": {"b": {"c": 1}, "d": 2.5}}) == {"a/b/c": 1.0, "a/d": 2.5}


def test_learning_rate_of_a_line_is_the_one_that_its_step_used():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 0.5**i)
    trainer, writer = CountingTrainer(), ListWriter()
    trainer.register_hooks([LRScheduler(scheduler), PeriodicWriter([writer], period=1)])
    optimizer.step()
    trainer.train(0, 3)
    assert [scalars["lr"] for _, scalars in writer.lines] == [1.0, 0.5, 0.25]


def test_checkpoints_come_at_the_period_and_the_last_is_final(tmp_path):
    trainer = CountingTrainer()
    checkpointer = Checkpointer(nn.Linear(1, 1), tmp_path)
    trainer.register_hooks([PeriodicCheckpointer(checkpointer, period=2)])
    with checkpointer:
        trainer.train(0, 6)
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == [
        "model_0000001.pth",
        "model_0000003.pth",
        "model_final.pth",
    ]
    assert torch.load(tmp_path / "model_final.pth", weights_only=True)["iteration"] == 5


def test_lines_of_a_run_resumed_between_two_lines_equal_those_of_an_unbroken_one(tmp_path):
    def run(folder, start, stop):
        trainer = CountingTrainer()
        parts = {"storage": trainer.storage}
        checkpointer = Checkpointer(nn.Linear(1, 1), folder, rank_parts=parts)
        if start:
            checkpointer.restore_rank(checkpointer.resume()["ranks"])
        writer = JSONWriter(folder / "metrics.json", start)
        trainer.register_hooks(
            [PeriodicWriter([writer], period=4), PeriodicCheckpointer(checkpointer, period=3)]
        )
        trainer.max_iter = 12
        with checkpointer:
            for trainer.iter in range(start, stop):
                trainer.run_step()
                trainer.after_step()
        return [json.loads(x) for x in (folder / "metrics.json").read_text().splitlines()]

    unbroken = run(tmp_path / "unbroken", 0, 12)
    run(tmp_path / "broken", 0, 9)  # the last checkpoint is of iteration 8, the last line of 7
    assert run(tmp_path / "broken", 9, 12) == unbroken
    assert [line["iteration"] for line in unbroken] == [3, 7, 11]
