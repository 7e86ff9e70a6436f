"""Starting as many processes as asked for, or joining those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from semsam.modeling.build import resolve_device
from semsam.utils import comm


def launch(
    main_func: Callable[..., Any], num_gpus: int = 1, device: str = "auto", args: tuple = ()
) -> None:
    """Run ``main_func(*args)`` in one process or in several that know each other.

    Under torchrun, however many machines it spans, this process joins the others and ``num_gpus``
    is not read. Otherwise ``num_gpus`` workers are started on this machine by torch's elastic
    agent: one a GPU, or CPU processes (gloo) if the device is the CPU. One worker is this process.

    Args:
        main_func: importable from its module, since workers import it.
        num_gpus: workers.
        device: MODEL.DEVICE.
        args: passed on; picklable.

    Raises:
        ValueError: if there are fewer GPUs than workers.
        torch.distributed.elastic.multiprocessing.errors.ChildFailedError: if a worker fails; the
            others are stopped.
    """
    if num_gpus < 1:
        raise ValueError(f"--num-gpus is 1 or more (CPU processes without a GPU), not {num_gpus}")
    on_gpu = resolve_device(device).type == "cuda"
    if comm.is_launched():
        _join(main_func, args, on_gpu)
    elif num_gpus == 1:
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
            run_id="semsam",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
        )
        threads = max(1, (os.cpu_count() or 1) // num_gpus)
        elastic_launch(config, _worker)(main_func, args, on_gpu, threads)


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
    # Objects and CPU tensors go through gloo also where gradients go through NCCL.
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    try:
        main_func(*args)
    finally:
        dist.destroy_process_group()
