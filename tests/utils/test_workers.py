import os
import signal
import subprocess
import sys
import time

import pytest

from semsam.utils.workers import map_in_processes


@pytest.mark.parametrize(("workers", "method"), [(1, "fork"), (3, "fork"), (2, "spawn")])
def test_each_item_is_done_once(workers, method):
    assert dict(map_in_processes(str, range(7), workers, method)) == {i: str(i) for i in range(7)}


def fail_at_three(item):
    if item == 3:
        raise OSError(28, "No space left on device")
    return item


def test_what_the_function_raises_ends_the_work():
    with pytest.raises(OSError, match="No space left") as info:
        list(map_in_processes(fail_at_three, range(100), 2))
    assert info.value.errno == 28


def test_workers_end_where_their_parent_would_not():
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with pytest.raises(OSError, match="No space left"):
            list(map_in_processes(fail_at_three, range(100), 2))
    finally:
        signal.signal(signal.SIGTERM, before)


class Odd(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


def raise_odd(item):
    raise Odd("one", "two")


def test_an_error_that_cannot_be_sent_arrives_as_text():
    with pytest.raises(RuntimeError, match="Odd: one two"):
        list(map_in_processes(raise_odd, [1, 2], 2))


def die(item):
    if item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_worker_that_dies_is_an_error():
    with pytest.raises(RuntimeError, match="killed by SIGKILL"):
        list(map_in_processes(die, range(4), 2))


PARENT = """
import os, sys, time
from semsam.utils.workers import map_in_processes

def work(item):
    open(f"{sys.argv[1]}/{os.getpid()}", "w").close()
    time.sleep(0.1)

list(map_in_processes(work, range(10000), 3))
"""


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_end_when_their_parent_is_killed(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    pids = [path.name for path in tmp_path.iterdir()]
    assert len(pids) == 3
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_running, pids))
