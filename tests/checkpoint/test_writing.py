"""Checkpoints are written by a thread while the run goes on; what is slow to pickle holds it up."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from semsam.checkpoint.checkpointer import Checkpointer
from semsam.checkpoint.snapshot import copy_to_cpu, tensor_bytes
from semsam.engine import HookBase, PeriodicCheckpointer, SimpleTrainer


class Held:
    """Writing stops at it until ``gate`` is open."""

    def __init__(self, gate):
        self.gate = gate

    def __reduce__(self):
        self.gate.wait(20)
        return OrderedDict, ()


class Weight(nn.Module):
    """Its loss is its weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, batch):
        return {"loss": self.weight.sum()}


@pytest.fixture(params=[False, True], ids=["file", "folder"])
def make(request, tmp_path):
    """A writer of files, or of folders."""

    def make(model=None):
        return Checkpointer(model or Weight(), tmp_path, shards=request.param)

    return make


def newest(folder):
    return (folder / "last_checkpoint").read_text()


class Opener(HookBase):
    """Looks at a run after step 3, and opens the gate."""

    def __init__(self, gate, folder):
        self.gate, self.folder = gate, folder

    def after_step(self):
        if self.trainer.iter == 3:
            self.seen = newest(self.folder), self.trainer.model.weight.item()
            self.gate.set()


def test_steps_go_on_while_a_checkpoint_is_written_and_it_holds_the_weights_of_its_moment(
    make, tmp_path
):
    model, gate = Weight(), threading.Event()
    trainer = SimpleTrainer(model, [[]] * 9, torch.optim.SGD(model.parameters(), lr=0.25))
    opener = Opener(gate, tmp_path)
    with make(model) as checkpointer:
        checkpointer.begin_run()
        checkpointer.save("model_0000000", iteration=0, held=Held(gate))
        trainer.register_hooks([opener, PeriodicCheckpointer(checkpointer, period=100)])
        trainer.train(1, 5)
    assert opener.seen == ("", 0.25)
    (tmp_path / "last_checkpoint").write_text(newest(tmp_path).replace("final", "0000000"))
    fresh = make()
    assert fresh.resume()["iteration"] == 0
    assert fresh.model.weight.item() == 1.0


def test_the_next_checkpoint_waits_for_the_one_before(make, tmp_path):
    gate, later = threading.Event(), threading.Timer(0.3, lambda: gate.set())
    with make() as checkpointer:
        checkpointer.save("model_0000000", iteration=0, held=Held(gate))
        later.start()
        checkpointer.save("model_0000001", iteration=1)
        assert newest(tmp_path).startswith("model_0000000")
    assert newest(tmp_path).startswith("model_0000001")


def test_an_error_of_writing_stops_training_at_the_next_step(make, tmp_path):
    model = Weight()
    trainer = SimpleTrainer(model, [[]] * 9, torch.optim.SGD(model.parameters(), lr=0.25))
    checkpointer = make(model)
    checkpointer.save("model_0000000", iteration=0, held=threading.Lock())
    while not checkpointer._writing.done():
        time.sleep(0.01)
    trainer.register_hooks([PeriodicCheckpointer(checkpointer, period=100)])
    with pytest.raises(TypeError, match="lock"), checkpointer:
        trainer.train(1, 4)
    assert trainer.iter == 1
    assert not (tmp_path / "last_checkpoint").exists()


def stop_after_saving(checkpointer):
    with checkpointer:
        checkpointer.save("model_0000000", iteration=0)
        raise RuntimeError("stop")


def test_an_error_of_training_waits_for_what_is_written(make, tmp_path):
    with pytest.raises(RuntimeError, match="stop"):
        stop_after_saving(make())
    assert newest(tmp_path).startswith("model_0000000")


_KILLED = """
import sys, threading
from tests.checkpoint.test_writing import Checkpointer, Held, Weight

checkpointer = Checkpointer(Weight(), sys.argv[1], shards=sys.argv[2] == "folder")
checkpointer.save("model_0000004", iteration=4)
checkpointer.save("model_0000009", iteration=9, held=Held(threading.Event()))
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, kind):
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path), kind],
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
    )
    while not list(tmp_path.glob(".model_0000009*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    writer = Checkpointer(Weight(), tmp_path, shards=kind == "folder")
    assert writer.resume()["iteration"] == 4
    with writer:
        writer.save("model_0000014", iteration=14)
    assert not list(tmp_path.glob(".model_*"))


def test_a_copy_keeps_what_shares_memory_together_and_nothing_shared_with_the_original():
    weight = torch.arange(6.0).view(2, 3)
    state = {"a": weight, "tied": weight, "row": [weight[1]], "plain": ("x", 1)}
    copy = copy_to_cpu(state)
    assert tensor_bytes(copy) == tensor_bytes(state) == weight.nbytes
    weight.zero_()
    assert copy["tied"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert copy["row"][0].tolist() == [3, 4, 5]
    assert copy["plain"] == ("x", 1)
