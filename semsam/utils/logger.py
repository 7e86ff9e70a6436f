"""One logger for the package: console and file on the main process, a file on the others."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from termcolor import colored

from . import comm

_LEVEL_COLOURS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}


def setup_logger(output_dir: str | Path | None = None, name: str = "semsam") -> logging.Logger:
    """Give a logger its handlers; a second call replaces those of the first.

    Args:
        output_dir: folder of ``log.txt`` (``log.txt.rank1`` and so on for the other ranks), which
            is appended to; None for the console alone.
        name: the logger and all below it are set up.

    Returns:
        The logger. Every process writes warnings to the console, the main one also information.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()

    rank = comm.get_rank()
    console = logging.StreamHandler(sys.stdout)
    console.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    console.setFormatter(_Formatter(use_colour=sys.stdout.isatty(), rank=rank))
    logger.addHandler(console)
    if output_dir is not None:
        path = Path(output_dir) / ("log.txt" if rank == 0 else f"log.txt.rank{rank}")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(_Formatter(use_colour=False, rank=rank))
        logger.addHandler(file)
    return logger


class _Formatter(logging.Formatter):
    def __init__(self, use_colour: bool, rank: int) -> None:
        super().__init__(datefmt="%m-%d %H:%M:%S")
        self._use_colour = use_colour
        self._origin = f" rank {rank}" if rank else ""

    def formatMessage(self, record: logging.LogRecord) -> str:
        head = f"[{self.formatTime(record, self.datefmt)}{self._origin} {record.name}]"
        level = f"{record.levelname}: " if record.levelno >= logging.WARNING else ""
        if self._use_colour:
            head = colored(head, "green", force_color=True)
            level = level and colored(level, _LEVEL_COLOURS[record.levelname], force_color=True)
        return f"{head} {level}{record.message}"
