import signal
from datetime import timedelta

import pytest
import torch.distributed as dist

from semsam.checkpoint.checkpointer import Checkpointer
from semsam.config import get_cfg
from semsam.engine.defaults import goes_on
from semsam.utils import elastic
from semsam.utils.comm import get_agent


@pytest.fixture
def agent(monkeypatch):
    """What an elastic agent tells its workers, and its store."""
    store = dist.TCPStore("localhost", 0, is_master=True, timeout=timedelta(seconds=20))
    variables = {
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RUN_ID": "run",
        "TORCHELASTIC_MAX_RESTARTS": "3",
        "TORCHELASTIC_RESTART_COUNT": "1",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(store.port),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return store


def test_what_the_agent_says_is_read(agent):
    assert get_agent() == ("localhost", agent.port, "run", 0, 2)


def test_without_an_agent_nothing_is_noted_and_everyone_is_first():
    assert get_agent() is None
    assert elastic.note("mark")
    assert not elastic.is_noted("mark")


def test_a_mark_is_seen_by_all_and_the_first_knows_it(agent):
    assert not elastic.is_noted("mark")
    assert elastic.note("mark")
    assert not elastic.note("mark")
    assert elastic.is_noted("mark")


def test_an_agent_is_told_to_stop_once(agent, monkeypatch):
    sent = []
    monkeypatch.setattr("os.kill", lambda *args: sent.append(args[1]))
    elastic.stop_agent()
    elastic.stop_agent()
    assert sent == [signal.SIGHUP]


def test_restarted_workers_resume_what_the_run_has_begun_and_no_earlier_run(agent, tmp_path):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    assert not goes_on(cfg, resume=False)
    assert goes_on(cfg, resume=True)
    Checkpointer(None, tmp_path).begin_run()
    assert goes_on(cfg, resume=False)
    cfg.OUTPUT_DIR = str(tmp_path / "another")
    assert not goes_on(cfg, resume=False)
