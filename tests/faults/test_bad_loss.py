"""A loss that is not a number on one of two ranks, as processes."""

import pytest
import torch

from tests.tools.tiny_run import lines, run

from .speck_run import write_config


@pytest.mark.slow
def test_a_nan_on_one_rank_stops_all_with_one_error_and_no_restart(tmp_path):
    config, output = write_config(tmp_path), tmp_path / "output"
    fault = ("FAULT.KIND=nan", "FAULT.RANK=1")
    text = run(config, output, "--num-gpus", "2", "--max-restarts", "3", *fault, fails=True)
    start = "no restart cures FloatingPointError: the loss at iteration 7 is not finite: rank 1: "
    assert text.count(start) == 1
    error = text[text.index(start) :].splitlines()[0]
    assert "loss_size nan (images: " in error
    assert "sa_" in error
    assert "loss_colour" not in error
    # Both ranks were told, and nothing was started again.
    for log in ("log.txt", "log.txt.rank1"):
        assert (output / log).read_text().count("the loss at iteration 7 is not finite") >= 1
        assert (output / log).read_text().count("training from iteration") == 1
    assert [line["iteration"] for line in lines(output)] == [1, 3, 5]
    newest = output / (output / "last_checkpoint").read_text()
    state = torch.load(newest, weights_only=True)
    assert state["iteration"] == 5
    assert all(value.isfinite().all() for value in state["model"].values())
