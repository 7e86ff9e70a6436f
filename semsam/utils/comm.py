"""Ranks and small collectives, usable with and without a process group.

The only place that reads the rank variables set by torchrun: before a process group exists they
say who this process is.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Agent(NamedTuple):
    """The elastic agent that started this process.

    Attributes:
        host, port: of the store that the agents of all machines share.
        run_id: of the run, the same after a restart.
        machine: number of the agent's machine among all, from 0.
        restarts_left: how often it will start workers again.
    """

    host: str
    port: int
    run_id: str
    machine: int
    restarts_left: int


def has_process_group() -> bool:
    """Whether ``torch.distributed`` has been initialised in this process."""
    return dist.is_available() and dist.is_initialized()


def is_launched() -> bool:
    """Whether torchrun (or another elastic agent) started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def get_agent() -> Agent | None:
    """The agent that started this process; None for none, or one whose store ends with workers."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    restarts, done = (
        int(os.environ[f"TORCHELASTIC_{name}"]) for name in ("MAX_RESTARTS", "RESTART_COUNT")
    )
    return Agent(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        os.environ["TORCHELASTIC_RUN_ID"],
        int(os.environ["GROUP_RANK"]),
        restarts - done,
    )


def get_rank() -> int:
    """Number of this process among all, from 0."""
    return dist.get_rank() if has_process_group() else int(os.environ.get("RANK", "0"))


def get_world_size() -> int:
    """Number of processes, 1 without distribution."""
    if has_process_group():
        return dist.get_world_size()
    return int(os.environ.get("WORLD_SIZE", "1"))


def get_local_rank() -> int:
    """Number of this process among those of its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main_process() -> bool:
    """Whether this process writes files and speaks for all."""
    return get_rank() == 0


def synchronize(group: Any = None) -> None:
    """Wait until every process arrives here; as long as ``patient_group`` allows, if given."""
    if has_process_group():
        dist.barrier(group)


def patient_group(timeout: timedelta) -> Any:
    """Every process, in a group whose members may come so much later than others; None for one.

    All processes call this at one time, before the work that takes them unlike times.
    """
    return dist.new_group(backend="gloo", timeout=timeout) if has_process_group() else None


def all_gather(value: Any) -> list[Any]:
    """Return the picklable ``value`` of every rank, in rank order, on every rank."""
    if not has_process_group():
        return [value]
    values: list[Any] = [None] * get_world_size()
    dist.all_gather_object(values, value)
    return values


def gather(value: Any, dst: int = 0) -> list[Any]:
    """Return the picklable ``value`` of every rank on rank ``dst``, an empty list on the others."""
    if not has_process_group():
        return [value]
    values: list[Any] | None = [None] * get_world_size() if get_rank() == dst else None
    dist.gather_object(value, values, dst=dst)
    return values or []


def broadcast(value: Any, src: int = 0) -> Any:
    """Return the picklable ``value`` of rank ``src`` on every rank."""
    if not has_process_group():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=src)
    return values[0]


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Return the sum of ``tensor`` over ranks, detached; without ranks, a detached copy."""
    total = tensor.detach().clone()
    if has_process_group():
        dist.all_reduce(total)
    return total


def all_gather_rows(tensor: Tensor) -> Tensor:
    """Return the rows of every rank, in rank order, on every rank, with gradients to their rank.

    The gradient of a row is the sum of what all ranks' losses give it, so every rank must step
    backward through its copy.

    Args:
        tensor: (n, ...); only n may differ between ranks.

    Returns:
        (sum of n, ...); without ranks the tensor itself.
    """
    if not has_process_group():
        return tensor
    counts = [int(n) for n in all_gather_numbers(len(tensor), tensor.device)]
    most = max(counts)
    padded = torch.cat([tensor, tensor.new_zeros(most - len(tensor), *tensor.shape[1:])])
    ranks: list[Tensor] = _GatherWithGradient.apply(padded).unbind()
    return torch.cat([rows[:count] for rows, count in zip(ranks, counts, strict=True)])


def all_gather_numbers(number: float, device: torch.device) -> list[float]:
    """Return the number of every rank, in rank order; ``device`` is one that the backend takes."""
    if not has_process_group():
        return [number]
    own = torch.tensor([float(number)], device=device)
    numbers = [torch.empty_like(own) for _ in range(get_world_size())]
    dist.all_gather(numbers, own)
    return torch.cat(numbers).tolist()


class _GatherWithGradient(torch.autograd.Function):
    """(...) of equal shape on each of W ranks -> (W, ...)."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ranks = [torch.empty_like(tensor) for _ in range(get_world_size())]
        dist.all_gather(ranks, tensor.contiguous())
        return torch.stack(ranks)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[get_rank()]


def broadcast_module(module: nn.Module, src: int = 0) -> None:
    """Give every rank the parameters and buffers of rank ``src``."""
    if has_process_group():
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=src)
