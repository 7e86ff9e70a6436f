"""Lines of json that workers append while they run, and that are merged when they are done.

``KIND.jsonl`` is the first worker's and holds all lines after a merge, ``KIND.WORKER.jsonl`` are
the others'. Each line has the ``name`` of a photo; the last one of a name counts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semsam.utils.file_io import atomic_write

logger = logging.getLogger(__name__)


def journal_path(folder: Path, kind: str, worker: str = "") -> Path:
    """The file of a worker; the first one's name is ""."""
    return folder / (f"{kind}.{worker}.jsonl" if worker else f"{kind}.jsonl")


def journal_files(folder: Path, kind: str) -> list[Path]:
    """What all workers wrote, the first one's before the others'."""
    first = journal_path(folder, kind)
    return [first] * first.is_file() + sorted(folder.glob(f"{kind}.*.jsonl"))


def read_journal(folder: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Lines by name, without names that were withdrawn; for a broken line a photo is done again."""
    lines: dict[str, dict[str, Any]] = {}
    for path in journal_files(folder, kind):
        for number, text in enumerate(path.read_bytes().splitlines(), 1):
            try:
                line = json.loads(text)
                lines[line["name"]] = line
                if "withdrawn" in line:
                    del lines[line["name"]]
            except (ValueError, KeyError, TypeError):
                logger.warning("%s: line %d is broken, left out", path, number)
    return lines


def merge_journal(folder: Path, kind: str, lines: Mapping[str, dict[str, Any]]) -> None:
    """Leave one file with these lines in the order of names, or none if there is no line.

    Raises:
        OSError: if it cannot be written; what there was is untouched then.
    """
    target = journal_path(folder, kind)
    if lines:
        with atomic_write(target) as file:
            for name in sorted(lines):
                file.write(json.dumps(lines[name]) + "\n")
    for path in journal_files(folder, kind):
        if path != target or not lines:
            path.unlink()
