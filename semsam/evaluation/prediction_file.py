"""Predictions that are kept as they are made, so that an interrupted evaluation can go on."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from semsam.utils import comm

logger = logging.getLogger(__name__)


class PredictionFile:
    """Json lines, a file a rank.

    Lines are appended as predictions come, so that an interruption costs at most half a line.

    Args:
        folder: where ``NAME[-rank<n>].jsonl`` is; made with the first line.
        name: characters that a file name should not have become ``_``.
        keys: what every line has.
    """

    def __init__(self, folder: str | Path, name: str, keys: Sequence[str]) -> None:
        self._folder = Path(folder)
        self._stem = re.sub(r"[^\w.+-]+", "_", name)
        self._keys = keys
        rank = f"-rank{comm.get_rank()}" if comm.get_world_size() > 1 else ""
        #: Where this rank writes.
        self.path = self._folder / f"{self._stem}{rank}.jsonl"

    def start(self, resume: bool) -> list[dict[str, Any]]:
        """Begin an evaluation: the rows of an interrupted one, or else none, and no file.

        Raises:
            ValueError: if a line is broken.
        """
        if resume:
            return list(self.read())
        if comm.is_main_process():
            for path in self._files():
                path.unlink()
        # Before another rank writes.
        comm.synchronize()
        return []

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write rows behind what is there."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(text)

    def read(self) -> Iterator[dict[str, Any]]:
        """Rows of all ranks' files, whatever the number of ranks then; half a last line is dropped.

        Raises:
            ValueError: if another line is broken; names file and line.
        """
        for path in self._files():
            content = path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                logger.warning("%s: dropped its last line, which is incomplete", path)
                if path == self.path:
                    # The next line must not continue it.
                    os.truncate(path, whole)
            for number, line in enumerate(content[:whole].splitlines(), 1):
                yield self._row(line, f"{path}, line {number}")

    def _files(self) -> list[Path]:
        pattern = re.compile(re.escape(self._stem) + r"(-rank\d+)?\.jsonl")
        found = self._folder.glob("*.jsonl")
        return sorted(path for path in found if pattern.fullmatch(path.name))

    def _row(self, line: bytes, where: str) -> dict[str, Any]:
        cure = "remove the line, or start anew without resuming"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{where}: {error}; {cure}") from None
        missing = [key for key in self._keys if not isinstance(row, dict) or key not in row]
        if missing:
            raise ValueError(f"{where}: it lacks {missing}; {cure}")
        return row
