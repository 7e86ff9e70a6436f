"""``tools/train_net.py`` as users run it: a process, killed and resumed."""

import json
import os
import signal
import time

import pytest
import torch

from semsam.utils.events import read_metrics

from .tiny_run import lines, run, start, write_config, write_images


def run_and_kill(config, output, *arguments, after_line):
    """Send SIGKILL to every process of a run as soon as it has written so many lines."""
    process = start(config, output, *arguments)
    deadline = time.monotonic() + 240
    while len(read_metrics(output / "metrics.json")) < after_line:
        assert process.poll() is None, process.stdout.read()[-4000:]
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (output / "model_final.pth").exists(), "the run was over before it could be killed"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "images"
    write_images(folder)
    return folder


@pytest.fixture
def config(tmp_path, images):
    return write_config(tmp_path / "tiny.yaml", images, tmp_path / "output")


@pytest.mark.slow
@pytest.mark.parametrize(("num_gpus", "kills"), [(1, [4, 9]), (2, [6])])
def test_a_killed_and_resumed_run_writes_the_lines_of_an_unbroken_one(
    config, tmp_path, num_gpus, kills
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    workers = ("--num-gpus", str(num_gpus))
    run(config, whole, *workers)
    for line in kills:
        # Loader processes have read ahead of the step at which the run is killed.
        loaders = "DATALOADER.NUM_WORKERS=1"
        run_and_kill(config, broken, "--resume", *workers, loaders, after_line=line)
    text = run(config, broken, "--resume", *workers)
    assert "resuming from" in text
    # A line each two iterations, and one for the evaluation at the end.
    assert [line["iteration"] for line in lines(whole)] == [*range(1, 40, 2), 40]
    assert lines(broken) == lines(whole)
    final = [torch.load(o / "model_final.pth", weights_only=True) for o in (whole, broken)]
    for name, value in final[0]["model"].items():
        assert torch.equal(value, final[1]["model"][name]), name


@pytest.mark.slow
def test_evaluation_alone_repeats_that_of_training_on_any_number_of_workers(config, tmp_path):
    output = tmp_path / "output"
    run(config, output, "SOLVER.MAX_ITER", "10")
    trained = json.loads((output / "results.json").read_text())
    weights = f"MODEL.WEIGHTS={output / 'model_final.pth'}"
    run(config, tmp_path / "one", "--eval_only", weights)
    run(config, tmp_path / "two", weights, "--eval-only", "--num-gpus", "2")
    assert json.loads((tmp_path / "one/results.json").read_text()) == trained
    assert json.loads((tmp_path / "two/results.json").read_text()) == trained
    assert len(trained) == 1
    assert not (tmp_path / "one/metrics.json").exists()


@pytest.mark.slow
def test_workers_evaluate_the_same_untrained_model(config, tmp_path):
    for name, workers in (("one", "1"), ("two", "2")):
        run(config, tmp_path / name, "--eval-only", "--num-gpus", workers)
    results = [json.loads((tmp_path / n / "results.json").read_text()) for n in ("one", "two")]
    assert results[0] == results[1]


@pytest.mark.slow
def test_the_plain_loop_computes_the_same_losses(config, tmp_path):
    short = ("SOLVER.MAX_ITER=6", "DATASETS.TEST=()")
    run(config, tmp_path / "hooks", *short)
    run(config, tmp_path / "plain", *short, tool="plain_train_net.py")
    by_hooks, by_loop = lines(tmp_path / "hooks"), lines(tmp_path / "plain")
    assert len(by_loop) == 3
    for expected, line in zip(by_hooks, by_loop, strict=True):
        assert line == pytest.approx({name: expected[name] for name in line})


def test_a_mistyped_key_is_named_before_anything_starts(config, tmp_path):
    process = start(config, tmp_path / "output", "SOLVER.MAX_ITERS", "3", "--num-gpus", "2")
    text, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "unknown key 'SOLVER.MAX_ITERS' (did you mean 'MAX_ITER'?)" in text
    assert not (tmp_path / "output").exists()


def test_torchrun_does_not_start_a_wrong_configuration_again(config, tmp_path):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--max-restarts", "3"]
    output = tmp_path / "output"
    text = run(config, output, "SOLVER.MAX_ITERS", "3", launcher=launcher, fails=True)
    assert text.count("no restart cures ValueError: unknown key") == 1
    assert text.count("Traceback (most recent call last)") == 2  # the worker's, the agent's
