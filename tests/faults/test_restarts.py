"""Ranks that die, as processes: the elastic agent starts them again, and the losses stay."""

import runpy
import uuid

import pytest
import torch

from tests.tools.tiny_run import ROOT, finish, lines, run, start

from .speck_run import MAX_ITER, write_config


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("speck"))


@pytest.fixture(scope="module")
def whole(config):
    """The folder of an unbroken run of two ranks."""
    output = config.parent / "whole"
    run(config, output, "--num-gpus", "2")
    return output


def assert_same_run(broken, whole):
    assert [line["iteration"] for line in lines(whole)] == list(range(1, MAX_ITER, 2))
    assert lines(broken) == lines(whole)
    states = [torch.load(o / "model_final.pth", weights_only=True) for o in (broken, whole)]
    for name, value in states[1]["model"].items():
        assert torch.equal(states[0]["model"][name], value), name


@pytest.mark.slow
def test_a_killed_rank_is_started_again_and_the_losses_stay(config, tmp_path, whole):
    fault = ("FAULT.KIND=kill", "FAULT.RANK=1")
    text = run(config, tmp_path, "--num-gpus", "2", "--max-restarts", "1", *fault)
    assert f"resuming from {tmp_path / 'model_0000005.pth'}" in text
    assert_same_run(tmp_path, whole)


def start_agent(config, output, job, *arguments):
    """What tools/submit.py starts on each of two machines, here both this one."""
    training = runpy.run_path(str(ROOT / "tools/submit.py"))["Training"]([], [], 1, 1)
    launcher = ["-m", "torch.distributed.run"]
    launcher += training.agent_arguments(job, ["localhost", "localhost"])
    return start(config, output, *arguments, launcher=launcher)


@pytest.mark.slow
def test_two_machines_go_on_from_the_last_whole_checkpoint_when_all_ranks_are_killed(
    config, tmp_path, whole
):
    fault = "FAULT.KIND=kill, newest checkpoint cut"
    job = uuid.uuid4().hex
    agents = [start_agent(config, tmp_path, job, fault) for _ in range(2)]
    text = "".join(finish(agent) for agent in agents)
    assert "model_0000005.pth is damaged" in text
    assert f"resuming from {tmp_path / 'model_0000002.pth'}" in text
    assert_same_run(tmp_path, whole)


@pytest.mark.slow
def test_ranks_that_share_a_model_go_on_from_the_last_whole_checkpoint(config, tmp_path, whole):
    """Of a folder, one part is cut; losses are those of ranks with copies of the model."""
    fault = ("FAULT.KIND=kill, newest checkpoint cut", "FAULT.RANK=0", "SOLVER.PARALLEL=fsdp")
    text = run(config, tmp_path, "--num-gpus", "2", "--max-restarts", "1", *fault)
    assert "model_0000005 is damaged" in text
    assert f"resuming from {tmp_path / 'model_0000002'}" in text
    for expected, line in zip(lines(whole), lines(tmp_path), strict=True):
        assert line == pytest.approx(expected, rel=1e-5)
