"""A folder of results: one json a photo, and what it takes to stop at any moment and go on.

``NAME_semantic.json`` appears whole or not at all, and a line in ``journal.jsonl`` follows it; a
photo without a line, or whose file is not as its line says, is done again. ``failures.jsonl`` says
which photos could not be done, and ``manifest.json`` what all were done with. Further workers write
``journal.WORKER.jsonl`` and so on, which are merged when a run begins and when it ends: the same
folder is left by one worker and by many, by an unbroken run and by one that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from semsam.utils import comm
from semsam.utils.file_io import atomic_write, write_json

from .journal import journal_files, journal_path, merge_journal, read_journal
from .mask_sources import Item
from .parquet import PackedResults, pack_results
from .records import MANIFEST_NAME, RESULT_SUFFIX

logger = logging.getLogger(__name__)

PICTURE_SUFFIX = RESULT_SUFFIX.removesuffix(".json") + ".png"
#: What ``atomic_write`` leaves where a process is killed in it.
_UNFINISHED = re.compile(
    r"\.(.+_semantic\.(json|png)|manifest\.json|(journal|failures)\.jsonl|"
    r"results-\d+\.parquet)\.[^.]+"
)
_CURE = "go on with the old settings, name another folder, or start anew with --no-resume"


@dataclass(frozen=True)
class Summary:
    """What a folder holds of the photos of a run, over all ranks.

    Attributes:
        photos: all photos of the run.
        finished: those that have a result, of this run or an earlier one.
        failed: those that could not be done.
        masks: of the finished ones.
        labelled: masks of which a labeller could say something.
        reasons: why photos failed, each with its number, the most frequent first.
    """

    photos: int
    finished: int
    failed: int
    masks: int
    labelled: int
    reasons: list[tuple[str, int]]


class ResultWriter:
    """Leaves results in a folder that an ``OutputFolder`` has made ready.

    Args:
        folder: of the results.
        worker: letters and digits that no other worker of the run is called by; "" for the first.
    """

    def __init__(self, folder: str | Path, worker: str = "") -> None:
        self.folder = Path(folder)
        self.worker = worker
        self._lock = threading.Lock()

    def result_path(self, name: str) -> Path:
        """The json of a photo."""
        return self.folder / f"{name}{RESULT_SUFFIX}"

    def picture_path(self, name: str) -> Path:
        """The picture of a photo."""
        return self.folder / f"{name}{PICTURE_SUFFIX}"

    def write(
        self,
        item: Item,
        result: dict[str, Any],
        labelled: int,
        image_size: tuple[int, int],
        picture: bytes | None = None,
    ) -> None:
        """Leave a result; from any thread.

        Args:
            item: the photo.
            result: with ``annotations``.
            labelled: masks of which something could be said.
            image_size: (H, W) of the photo.
            picture: a png.

        Raises:
            TypeError: if the result is not what json can hold.
            OSError: if it cannot be written.
        """
        assert item.image is not None
        text = json.dumps(result, default=_plain).encode()
        if picture is not None:
            with atomic_write(self.picture_path(item.name), "wb") as file:
                file.write(picture)
        with atomic_write(self.result_path(item.name), "wb") as file:
            file.write(text)
        line = {
            "name": item.name,
            "file_name": item.file_name,
            "height": image_size[0],
            "width": image_size[1],
            "bytes": len(text),
            "inputs": item.file_sizes(),
            "masks": len(result["annotations"]),
            "labelled": labelled,
        }
        self._append("journal", line)

    def fail(self, item: Item, stage: str, reason: str) -> None:
        """Note that a photo could not be done; from any thread.

        Args:
            item: the photo.
            stage: ``"read"``, ``"masks"``, the labeller's name, or ``"write"``.
            reason: what went wrong.
        """
        logger.warning("%s: %s: %s", item.name, stage, reason)
        line = {"name": item.name, "image": str(item.image), "stage": stage, "reason": reason}
        self._append("failures", line)

    def _append(self, kind: str, line: dict[str, Any]) -> None:
        text = json.dumps(line) + "\n"
        path = journal_path(self.folder, kind, self.worker)
        with self._lock, open(path, "a", encoding="utf-8") as file:
            file.write(text)


class OutputFolder(ResultWriter):
    """The folder that a run writes to; every rank opens it.

    Args:
        folder: made if absent.
        manifest: what the results are made with; what json can hold.
        items: the photos of the run, those of all ranks.
        resume: go on with what is there; else the journal starts anew, and results are replaced.

    Raises:
        ValueError: if the folder's results were made with something else; the message says what
            differs.
    """

    def __init__(
        self,
        folder: str | Path,
        manifest: dict[str, Any],
        items: Sequence[Item],
        resume: bool = True,
    ) -> None:
        rank = comm.get_rank()
        super().__init__(folder, f"rank{rank}" if rank else "")
        self._names = {item.name for item in items}
        problem = self._open(manifest, resume) if comm.is_main_process() else ""
        # Every rank gives up, none waits for one that has.
        if problem := comm.broadcast(problem):
            raise ValueError(problem)
        lines = read_journal(self.folder, "journal")
        self._journal = {name: line for name, line in lines.items() if name in self._names}
        self._packed = PackedResults(self.folder).sizes
        # A rank may be done hours before another.
        self._ranks = comm.patient_group(timedelta(days=30))

    def is_finished(self, item: Item, with_picture: bool = False) -> bool:
        """Whether a whole result of these very input files is there, by the sizes of the files.

        A result that was edited since is taken for finished if it still is json with annotations.
        """
        return self._has_result(item) and not self._lacks_picture(item, with_picture)

    def claim(self, item: Item, with_picture: bool = False) -> bool:
        """Whether a photo is to be done; a result of other input, or half a result, is forgotten.

        Args:
            item: the photo.
            with_picture: whether a picture is wanted too.
        """
        # Once: of millions of photos each look at the disk counts.
        whole = self._has_result(item)
        if item.name in self._journal and not whole:
            self._append("journal", {"name": item.name, "withdrawn": True})
        return not whole or self._lacks_picture(item, with_picture)

    def close(self, parquet: bool = False) -> Summary:
        """Merge what the ranks wrote, when all have finished; the same on every rank.

        Args:
            parquet: move the results into parquet files then, see ``semsam.annotation.parquet``;
                where there are some already, results always join them.

        Raises:
            OSError: if a file cannot be written.
        """
        comm.synchronize(self._ranks)
        summary = None
        if comm.is_main_process():
            summary = self._merge()
            if parquet or self._packed:
                pack_results(self.folder, read_journal(self.folder, "journal"))
        return comm.broadcast(summary)

    def _lacks_picture(self, item: Item, wanted: bool) -> bool:
        return wanted and not self.picture_path(item.name).is_file()

    def _has_result(self, item: Item) -> bool:
        line = self._journal.get(item.name)
        if line is None or line["inputs"] != item.file_sizes():
            return False
        path = self.result_path(item.name)
        try:
            return path.stat().st_size == line["bytes"] or _is_result(path)
        except OSError:
            return self._packed.get(item.name) == line["bytes"]

    def _open(self, manifest: dict[str, Any], resume: bool) -> str:
        """Make the folder ready; what is wrong with it, or nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / MANIFEST_NAME
        if not resume:
            for kind in ("journal", "failures"):
                for file in journal_files(self.folder, kind):
                    file.unlink()
        elif path.is_file():
            try:
                old = json.loads(path.read_bytes())
            except ValueError as error:
                return f"'{path}' is damaged ({error}): {_CURE}"
            # As it will be read again: tuples are lists then.
            differences = _differences(old, json.loads(json.dumps(manifest, default=_plain)))
            if differences:
                told = "; ".join(differences[:8])
                return f"the results in '{self.folder}' were made otherwise: {told}. Cure: {_CURE}"
        elif journal_files(self.folder, "journal"):
            return f"'{self.folder}' has results, but no '{MANIFEST_NAME}' says of what: {_CURE}"
        self._sweep()
        if not resume or not path.is_file():
            write_json(path, json.loads(json.dumps(manifest, default=_plain)))
        self._merge()
        return ""

    def _sweep(self) -> None:
        """Remove files that a killed run was writing."""
        for root, _, names in os.walk(self.folder):
            for name in names:
                if _UNFINISHED.fullmatch(name):
                    Path(root, name).unlink(missing_ok=True)

    def _merge(self) -> Summary:
        """One journal and one list of failures, in the order of names; what they say."""
        journal = read_journal(self.folder, "journal")
        failures = read_journal(self.folder, "failures")
        failures = {name: line for name, line in failures.items() if name not in journal}
        merge_journal(self.folder, "journal", journal)
        merge_journal(self.folder, "failures", failures)
        finished = [line for name, line in journal.items() if name in self._names]
        failed = [line for name, line in failures.items() if name in self._names]
        reasons = Counter(f"{line['stage']}: {line['reason']}" for line in failed)
        return Summary(
            photos=len(self._names),
            finished=len(finished),
            failed=len(failed),
            masks=sum(line["masks"] for line in finished),
            labelled=sum(line["labelled"] for line in finished),
            reasons=reasons.most_common(),
        )


@contextlib.contextmanager
def sole_run(folder: str | Path) -> Iterator[None]:
    """Keep other runs out of a folder, which is made if absent; every rank calls it.

    Raises:
        RuntimeError: if another run is writing to it.
    """
    handle, problem = None, ""
    if comm.is_main_process():
        Path(folder).mkdir(parents=True, exist_ok=True)
        # The system lets go of it when the process ends, however it does.
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            problem = f"another run is writing to '{folder}'"
        except OSError as error:
            logger.warning("'%s' cannot be locked against a second run: %s", folder, error)
    try:
        if problem := comm.broadcast(problem):
            raise RuntimeError(problem)
        yield
    finally:
        if handle is not None:
            os.close(handle)


class Results:
    """What a run has left, read by the names of photos.

    Args:
        folder: of the results.

    Attributes:
        lines: name -> the photo's line in the journal (``name``, ``file_name``, which is the
            photo's path in the folder of images, ``height``, ``width``, ...), in order of names.

    Raises:
        FileNotFoundError: if the folder has no journal.
        RuntimeError: if results are packed, but pyarrow is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.lines = dict(sorted(read_journal(self.folder, "journal").items()))
        if not self.lines:
            raise FileNotFoundError(f"'{folder}' has no journal.jsonl with results of annotation")
        self._packed = PackedResults(folder)

    def read(self, name: str) -> dict[str, Any]:
        """A photo's result.

        Raises:
            FileNotFoundError: if it is missing.
            ValueError: if it is damaged.
        """
        path = self.folder / f"{name}{RESULT_SUFFIX}"
        if name in self._packed.sizes and not path.is_file():
            return json.loads(self._packed.read(name))
        if _is_result(path):
            return json.loads(path.read_bytes())
        raise ValueError(f"'{path}' is no json with annotations: annotate again to resume")


def read_results(folder: str | Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Lines and results of all photos in the order of names; see :class:`Results` for errors."""
    results = Results(folder)
    for name, line in results.lines.items():
        yield line, results.read(name)


def _is_result(path: Path) -> bool:
    with contextlib.suppress(ValueError):
        content = json.loads(path.read_bytes())
        return isinstance(content, dict) and isinstance(content.get("annotations"), list)
    return False


def _differences(old: Any, new: Any, where: str = "") -> list[str]:
    """``key: OLD there, NEW now`` for each value in which two manifests differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        missing = object()
        keys = dict.fromkeys([*old, *new])
        return [
            difference
            for key in keys
            for difference in _differences(
                old.get(key, missing), new.get(key, missing), f"{where}.{key}" if where else key
            )
        ]
    if old == new:
        return []
    shown = [json.dumps(v) if _is_plain(v) else "nothing" for v in (old, new)]
    return [f"{where} was {shown[0]}, is {shown[1]}"]


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | list | dict | None)


def _plain(value: Any) -> Any:
    """What numpy gives, as json holds it."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a result holds a {type(value).__name__}, which json cannot")
