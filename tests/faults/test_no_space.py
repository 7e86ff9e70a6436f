"""A disk that is full when a checkpoint is due; a limit on the size of files stands for it."""

import pytest

from semsam.checkpoint.checkpointer import find_fault
from tests.tools.tiny_run import run

from .speck_run import write_config


@pytest.mark.slow
def test_no_space_for_a_checkpoint_stops_the_run_and_those_before_stay_whole(tmp_path):
    config, output = write_config(tmp_path), tmp_path / "output"
    text = run(config, output, "FAULT.KIND=no space", fails=True)
    error = text.splitlines()[-1]
    assert error.startswith("OSError: [Errno 28] no space: the file needs at least 1,0")
    assert "free" in error
    assert error.endswith(f"'{output / 'model_0000008.pth'}'")
    left = sorted(path.name for path in output.iterdir() if "model" in path.name)
    assert left == ["model_0000002.pth", "model_0000005.pth"]
    assert not any(find_fault(output / name) for name in left)
