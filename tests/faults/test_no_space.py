"""A disk that is full when a checkpoint is due; a limit on the size of files stands for it."""

import pytest

from semsam.checkpoint.checkpointer import find_fault
from tests.tools.tiny_run import run

from .speck_run import write_config


@pytest.mark.slow
@pytest.mark.parametrize(("parallel", "suffix"), [("ddp", ".pth"), ("fsdp", "")])
def test_no_space_for_a_checkpoint_stops_the_run_and_those_before_stay_whole(
    tmp_path, parallel, suffix
):
    config, output = write_config(tmp_path), tmp_path / "output"
    fault = ("FAULT.KIND=no space", f"SOLVER.PARALLEL={parallel}")
    text = run(config, output, *fault, fails=True)
    error = text.splitlines()[-1]
    assert error.startswith("OSError: [Errno 28] no space: the file needs at least 1,0")
    assert "free" in error
    assert error.endswith(f"'{output / 'model_0000008'}{suffix}'")
    left = sorted(path.name for path in output.glob("model*"))
    assert left == [f"model_0000002{suffix}", f"model_0000005{suffix}"]
    assert not any(find_fault(output / name) for name in left)
