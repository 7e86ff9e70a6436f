from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from semsam.utils import comm


def test_without_a_process_group_this_process_is_the_whole_world(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert (comm.get_rank(), comm.get_world_size(), comm.get_local_rank()) == (0, 1, 0)
    assert comm.is_main_process()
    assert comm.all_gather({"a": 1}) == comm.gather({"a": 1}) == [{"a": 1}]
    assert comm.broadcast("x") == "x"
    total = torch.ones(2, requires_grad=True)
    assert comm.all_reduce_sum(total).tolist() == [1, 1]
    assert not comm.all_reduce_sum(total).requires_grad
    comm.synchronize(comm.patient_group(timedelta(days=1)))


def test_ranks_are_known_before_the_process_group_exists(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert (comm.get_rank(), comm.get_world_size(), comm.get_local_rank()) == (3, 4, 1)
    assert not comm.is_main_process()


def _collect(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = {
        "all_gather": comm.all_gather([rank] * (rank + 1)),
        "gather": comm.gather(rank),
        "broadcast": comm.broadcast(f"from {rank}"),
        "sum": comm.all_reduce_sum(torch.tensor([1.0 + rank])).item(),
        "main": comm.is_main_process(),
    }
    comm.synchronize(comm.patient_group(timedelta(minutes=1)))
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_exchange_objects_of_different_size(tmp_path):
    mp.spawn(_collect, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first["all_gather"] == second["all_gather"] == [[0], [1, 1]]
    assert (first["gather"], second["gather"]) == ([0, 1], [])
    assert first["broadcast"] == second["broadcast"] == "from 0"
    assert first["sum"] == second["sum"] == pytest.approx(3.0)
    assert first["main"]
    assert not second["main"]
