"""Starting as many processes as asked for, or joining those that torchrun started."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from semsam.modeling.build import resolve_device
from semsam.utils import comm, elastic

#: Restarts that several workers get where ``max_restarts`` is None.
MAX_RESTARTS = 3

#: What torch says of a peer that is gone and of a GPU that failed; it has no class for all of it.
_LOST = re.compile(r"gloo|NCCL|CUDA error|CUDA out of memory")
#: Storage that may answer the next time.
_PASSING = {errno.EIO, errno.EREMOTEIO, errno.ESTALE, errno.EAGAIN, errno.EINTR}

#: The mark of a run that shall not be restarted.
_LASTING = "lasting error"

logger = logging.getLogger(__name__)


def launch(
    main_func: Callable[..., Any],
    num_gpus: int = 1,
    device: str = "auto",
    args: tuple = (),
    max_restarts: int | None = 0,
) -> None:
    """Run ``main_func(*args)`` in one process or in several that know each other.

    Under torchrun, however many machines it spans, this process joins the others; ``num_gpus`` and
    ``max_restarts`` are not read. Otherwise ``num_gpus`` workers are started on this machine by
    torch's elastic agent: one a GPU, or CPU processes (gloo) if the device is the CPU. One worker
    is this process, unless it shall be restarted.

    When a worker dies, or fails of what may pass (``is_passing``), the agent ends the others and
    starts all of them again. Any other error ends the run, however many restarts are left.

    Args:
        main_func: importable from its module, since workers import it; has to go on from what it
            has saved when it is called again.
        num_gpus: workers.
        device: MODEL.DEVICE.
        args: passed on; picklable.
        max_restarts: None for 3 with several workers and 0 with one.

    Raises:
        ValueError: if there are fewer GPUs than workers, or restarts are negative.
        RuntimeError: if the workers were stopped by an error that no restart cures, which has been
            logged, or by a signal to this process.
        torch.distributed.elastic.multiprocessing.errors.ChildFailedError: if a worker fails and no
            restart is left; the others are stopped.
    """
    if num_gpus < 1:
        raise ValueError(f"--num-gpus is 1 or more (CPU processes without a GPU), not {num_gpus}")
    if max_restarts is None:
        max_restarts = MAX_RESTARTS if num_gpus > 1 else 0
    if max_restarts < 0:
        raise ValueError(f"--max-restarts is 0 or more, not {max_restarts}")
    on_gpu = resolve_device(device).type == "cuda"
    if comm.is_launched():
        _join(main_func, args, on_gpu)
    elif num_gpus == 1 and not max_restarts:
        main_func(*args)
    else:
        if on_gpu and num_gpus > torch.cuda.device_count():
            raise ValueError(
                f"{num_gpus} workers need as many GPUs; torch sees {torch.cuda.device_count()}. "
                "MODEL.DEVICE cpu starts CPU processes"
            )
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=num_gpus,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=max_restarts,
        )
        threads = max(1, (os.cpu_count() or 1) // num_gpus)
        try:
            elastic_launch(config, _worker)(main_func, args, on_gpu, threads)
        except SignalException as error:
            raise RuntimeError(
                f"all workers were stopped by {error.sigval.name}; if nobody sent it, for the "
                "error that one of them has logged"
            ) from None


def is_passing(error: Exception) -> bool:
    """Whether workers that are started again may get past an error: a lost peer, GPU or storage."""
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError | TimeoutError) or error.errno in _PASSING
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None
    )


def _worker(main_func: Callable[..., Any], args: tuple, on_gpu: bool, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    _join(main_func, args, on_gpu)


def _join(main_func: Callable[..., Any], args: tuple, on_gpu: bool) -> None:
    if on_gpu:
        if comm.get_local_rank() >= torch.cuda.device_count():
            raise ValueError(
                f"local rank {comm.get_local_rank()} has no GPU; torch sees "
                f"{torch.cuda.device_count()}"
            )
        torch.cuda.set_device(comm.get_local_rank())
    with no_vain_restarts():
        # Objects and CPU tensors go through gloo also where gradients go through NCCL.
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=elastic.attempt_store(),
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
        )
        try:
            main_func(*args)
        finally:
            dist.destroy_process_group()


@contextlib.contextmanager
def no_vain_restarts() -> Iterator[None]:
    """Keep the agents of all machines from starting workers that would fail in the same way.

    ``launch`` does so for its function. Under torchrun a tool needs it for what comes before.
    """
    try:
        yield
    except Exception as error:
        agent = comm.get_agent()
        if agent is not None and agent.restarts_left:
            # Its store is gone with its machine; then there is nobody to be told.
            with contextlib.suppress(dist.DistError):
                _stop_if_lasting(error)
        raise


def _stop_if_lasting(error: Exception) -> None:
    if not is_passing(error) and elastic.note(_LASTING):
        logger.error("no restart cures %s: %s", type(error).__name__, error)
    # Whoever lost this process as a peer comes to the same end, on any machine.
    if elastic.is_noted(_LASTING):
        elastic.stop_agent()
