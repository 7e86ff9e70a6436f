"""What workers of an elastic agent leave in its store for each other, and for their successors.

torch's agents end and start the workers of all machines together. Their store outlives workers, so
it can say what those before a restart have done; for the same reason keys of the process group
would be left in it, which ``attempt_store`` keeps apart.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from datetime import timedelta

import torch.distributed as dist

from . import comm

_POLL_SECONDS = 0.05


def note(mark: str) -> bool:
    """Leave a mark for every process of the run, and for those that a restart puts in their place.

    Returns:
        Whether this process is the first to do so; always, where no agent started it.
    """
    store = _run_store()
    return store is None or store.add(mark, 1) == 1


def is_noted(mark: str) -> bool:
    """Whether a process of the run, or one before its restart, has left this mark."""
    store = _run_store()
    return store is not None and store.check([mark])


def stop_agent() -> None:
    """Have the agent that started this process end its workers, and itself, without a restart."""
    agent = comm.get_agent()
    # One signal an agent: a second would break into its clearing up. Not SIGTERM, by which SLURM
    # announces that a job will be requeued.
    if agent and note(f"stopped/{agent.machine}"):
        os.kill(os.getppid(), signal.SIGHUP)


def attempt_store() -> dist.Store | None:
    """A store for the process group of the workers that run now; None where no agent started us.

    Every worker has to call it. Agents do not count restarts alike, so rank 0 draws the name of
    this attempt and tells it to those who answer: what workers of an earlier attempt left is never
    read.
    """
    store = _run_store()
    if store is None:
        return None
    rank, others = comm.get_rank(), range(1, comm.get_world_size())
    if rank == 0:
        attempt = uuid.uuid4().hex
        while store.add(f"joined/{attempt}", 0) < len(others):
            for other in others:
                if store.check([f"asks/{other}"]):
                    store.set(f"answer/{store.get(f'asks/{other}').decode()}", attempt)
            time.sleep(_POLL_SECONDS)
    else:
        question = uuid.uuid4().hex
        store.set(f"asks/{rank}", question)
        attempt = store.get(f"answer/{question}").decode()
        store.add(f"joined/{attempt}", 1)
    return dist.PrefixStore(attempt, store)


def _run_store() -> dist.Store | None:
    agent = comm.get_agent()
    if agent is None:
        return None
    store = dist.TCPStore(agent.host, agent.port, is_master=False, timeout=timedelta(minutes=30))
    return dist.PrefixStore(f"semsam/{agent.run_id}", store)
