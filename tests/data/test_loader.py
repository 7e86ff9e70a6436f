"""Loader processes that really die and hang."""

import logging
import multiprocessing
import os
import signal
import time

import pytest
from torch.utils.data import DataLoader, Dataset

from semsam.data.loader import SteadyLoader


class Squares(Dataset):
    """Row i is i * i; what ``harm`` does happens at row 7, once if there is a folder to note it."""

    def __init__(self, harm=lambda: None, folder=None):
        self.harm = harm
        self.mark = folder and folder / "done"

    def __len__(self):
        return 24

    def __getitem__(self, row):
        if row == 7 and not (self.mark and self.mark.exists()):
            if self.mark:
                self.mark.touch()
            self.harm()
        return row * row


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def hang():
    time.sleep(1000)


def fail():
    raise RuntimeError("row 7 is bad")


EXPECTED = [[i * i, (i + 1) ** 2] for i in range(0, 24, 2)]


def steady(rows, workers=2, timeout=0):
    def build(taken):
        order = range(2 * taken, len(rows))
        return DataLoader(
            rows, 2, sampler=order, collate_fn=list, num_workers=workers, timeout=timeout
        )

    return SteadyLoader(build)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_and_end(workers):
    loader = steady(Squares(), workers)
    assert list(loader) == EXPECTED
    assert list(loader) == EXPECTED


def test_a_killed_worker_costs_no_batch(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert list(steady(Squares(kill_self, tmp_path))) == EXPECTED
    assert "loading goes on at batch" in caplog.text
    assert "was killed by SIGKILL" in caplog.text


def test_a_worker_killed_between_two_batches_does_not_disturb_the_step(caplog):
    got = []
    for number, batch in enumerate(steady(Squares())):
        got.append(batch)
        if number == 3:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
            time.sleep(0.3)
    assert got == EXPECTED
    assert "was killed by SIGKILL" in caplog.text


def test_a_hung_worker_is_replaced_after_the_timeout(tmp_path, caplog):
    assert list(steady(Squares(hang, tmp_path), timeout=1)) == EXPECTED
    assert "no batch came within 1 s" in caplog.text


def test_workers_that_always_die_end_in_one_error():
    with pytest.raises(RuntimeError, match=r"lost 4 times .* killed by SIGKILL.*NUM_WORKERS 0"):
        list(steady(Squares(kill_self)))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_data_is_no_loss_of_workers(workers):
    with pytest.raises(RuntimeError, match="row 7 is bad"):
        list(steady(Squares(fail), workers))


def test_no_worker_is_left_behind(tmp_path):
    list(steady(Squares(kill_self, tmp_path)))
    assert multiprocessing.active_children() == []
