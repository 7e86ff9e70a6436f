import errno
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from semsam.engine import launch
from semsam.engine.launch import is_passing
from semsam.utils import comm


def note_ranks(folder):
    ranks = comm.all_gather((comm.get_rank(), comm.get_local_rank(), comm.get_world_size()))
    Path(folder, str(comm.get_rank())).write_text(str(ranks))


def fail_on_one_rank():
    if comm.get_rank() == 1:
        raise RuntimeError("rank 1 gives up")
    comm.synchronize()


def test_one_worker_is_this_process():
    seen = []
    launch(seen.append, 1, "cpu", ("called",))
    assert seen == ["called"]


def test_two_workers_know_each_other(tmp_path):
    launch(note_ranks, 2, "cpu", (str(tmp_path),))
    expected = str([(0, 0, 2), (1, 1, 2)])
    assert [(tmp_path / rank).read_text() for rank in "01"] == [expected, expected]


def test_a_failing_worker_stops_the_others():
    with pytest.raises(ChildFailedError):
        launch(fail_on_one_rank, 2, "cpu")


def test_workers_of_torchrun_are_joined(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        "import sys\n"
        "from tests.engine.test_launch import note_ranks\n"
        "from semsam.engine import launch\n"
        "launch(note_ranks, 1, 'cpu', (sys.argv[1],))\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    python_path = f"import sys; sys.path.insert(0, {str(root)!r})\n"
    script.write_text(python_path + script.read_text())
    subprocess.run([*command, str(script), str(tmp_path)], check=True, timeout=120)
    assert (tmp_path / "1").read_text() == str([(0, 0, 2), (1, 1, 2)])


def begin_and_fail(folder):
    Path(folder, f"start_{comm.get_rank()}_{len(list(Path(folder).iterdir()))}").touch()
    comm.synchronize()
    if comm.get_rank() == 1:
        raise FileNotFoundError("/data/images is not there")
    comm.synchronize()


def test_an_error_that_no_restart_cures_ends_the_run_at_once(tmp_path):
    code = (
        "from semsam.engine import launch\n"
        "from tests.engine.test_launch import begin_and_fail\n"
        f"launch(begin_and_fail, 2, 'cpu', ({str(tmp_path)!r},), max_restarts=3)\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.count("no restart cures FileNotFoundError: /data/images is not there") == 1
    assert "RuntimeError: all workers were stopped by SIGHUP" in done.stderr
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (RuntimeError("[/gloo/transport/tcp/pair.cc:545] Connection reset by peer"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (torch.distributed.DistNetworkError("lost"), True),
        (ConnectionResetError(), True),
        (OSError(errno.ESTALE, "stale file handle"), True),
        (OSError(errno.ENOSPC, "no space left on device"), False),
        (FileNotFoundError("gone"), False),
        (ValueError("SOLVER.IMS_PER_BATCH is 3"), False),
        (FloatingPointError("the loss is not finite"), False),
        (RuntimeError("no checkpoint is whole"), False),
    ],
)
def test_errors_that_may_pass_are_known(error, passes):
    assert is_passing(error) is passes


def test_no_worker_at_all_is_rejected():
    with pytest.raises(ValueError, match="1 or more"):
        launch(print, 0)
    with pytest.raises(ValueError, match="--max-restarts is 0 or more"):
        launch(print, 1, "cpu", max_restarts=-1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_more_workers_than_gpus_are_rejected():
    with pytest.raises(ValueError, match=r"MODEL\.DEVICE cpu"):
        launch(print, torch.cuda.device_count() + 1)
