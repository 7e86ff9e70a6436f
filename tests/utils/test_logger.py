import logging

import pytest

from semsam.utils.logger import setup_logger

NAME = "semsam_test_logger"


@pytest.fixture(autouse=True)
def no_handlers_left():
    yield
    for handler in logging.getLogger(NAME).handlers:
        handler.close()
    logging.getLogger(NAME).handlers.clear()


def test_main_process_logs_to_console_and_file(tmp_path, capsys):
    setup_logger(tmp_path, NAME)
    logging.getLogger(f"{NAME}.part").info("hello")
    assert "hello" in capsys.readouterr().out
    assert f"{NAME}.part] hello" in (tmp_path / "log.txt").read_text()


def test_other_ranks_show_warnings_alone_and_keep_a_file_of_their_own(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("RANK", "1")
    logger = setup_logger(tmp_path, NAME)
    logger.info("quiet")
    logger.warning("loud")
    shown = capsys.readouterr().out
    assert "quiet" not in shown
    assert "rank 1" in shown
    assert "WARNING: loud" in shown
    assert "quiet" in (tmp_path / "log.txt.rank1").read_text()


def test_a_second_setup_does_not_repeat_lines(tmp_path):
    setup_logger(tmp_path, NAME)
    setup_logger(tmp_path, NAME).info("once")
    assert (tmp_path / "log.txt").read_text().count("once") == 1
