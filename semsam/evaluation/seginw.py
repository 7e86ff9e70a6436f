"""Segmentation in the Wild: 25 datasets, one number; and the submission of the benchmark.

A submission is a zip of 25 files ``seginw_NAME_val.json``, each a list of COCO's results without
boxes: ``image_id``, ``category_id`` (from 0), ``score``, ``segmentation`` (``size``, ``counts``).
"""

from __future__ import annotations

import json
import logging
import statistics
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semsam.data.datasets.instances import SEGINW_NAMES
from semsam.data.datasets.regions import read_json
from semsam.utils.file_io import atomic_write

from .evaluator import Results
from .instance_seg import COCOEvaluator, evaluator_arguments, prediction_file_name

logger = logging.getLogger(__name__)

_FIELDS = ("image_id", "segmentation", "category_id", "score")


def evaluate_seginw(folder: str | Path) -> tuple[Results, dict[str, str]]:
    """AP on each of the 25 datasets, from the files that an evaluation or a submission left.

    Args:
        folder: holds ``seginw_NAME_val.json``. The ground truth lies under ``$SEMSAM_DATASETS``.

    Returns:
        The tasks "bbox" and "segm", see :func:`summarize_seginw`; and {name: reason} of datasets
        that have no result, because the ground truth or the predictions are missing or damaged.

    Raises:
        RuntimeError: if none has a result.
    """
    results, failures = {}, {}
    for name in SEGINW_NAMES:
        dataset = f"seginw_{name}_val"
        try:
            evaluator = COCOEvaluator(**evaluator_arguments(dataset))
            results[name] = evaluator.evaluate_file(Path(folder) / prediction_file_name(dataset))
        except (OSError, ValueError, RuntimeError) as error:
            failures[name] = str(error)
            logger.error("'%s' has no result: %s", name, error)
    if not results:
        raise RuntimeError(f"none of the 25 datasets has a result; '{name}': {failures[name]}")
    return summarize_seginw(results), failures


def summarize_seginw(results: Mapping[str, Results]) -> Results:
    """Mean and median AP over datasets.

    Args:
        results: {name: what ``COCOEvaluator`` gives}, at least one.

    Returns:
        For each task ``mean AP``, ``median AP``, ``datasets`` (how many of the 25 these are of) and
        ``AP-NAME`` of each.
    """
    summary: Results = {}
    for task in next(iter(results.values())):
        values = {name: result[task]["AP"] for name, result in results.items()}
        summary[task] = {
            "mean AP": statistics.fmean(values.values()),
            "median AP": statistics.median(values.values()),
            "datasets": len(values),
            **{f"AP-{name}": value for name, value in values.items()},
        }
    return summary


def report_failures(failures: Mapping[str, str]) -> None:
    """Log how many datasets have no result, and which."""
    if failures:
        logger.error(
            "%d of %d datasets have no result: %s",
            len(failures),
            len(SEGINW_NAMES),
            ", ".join(failures),
        )


def with_failures(results: Results, failures: Mapping[str, str]) -> dict[str, Any]:
    """Results as a file holds them: with ``failures``, if there are any."""
    return {**results, "failures": dict(failures)} if failures else dict(results)


def write_submission(folder: str | Path, path: str | Path) -> None:
    """Pack the files of results as the benchmark takes them, atomically.

    Args:
        folder: holds ``seginw_NAME_val.json``, as evaluations leave them, of all 25 datasets.
        path: the zip.

    Raises:
        FileNotFoundError: if files are missing; names all of them.
        ValueError: if one is damaged.
    """
    files = [Path(folder) / f"seginw_{name}_val.json" for name in SEGINW_NAMES]
    if missing := [file.name for file in files if not file.is_file()]:
        raise FileNotFoundError(f"a submission has 25 files; '{folder}' lacks {', '.join(missing)}")
    with (
        atomic_write(path, "wb") as stream,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as pack,
    ):
        for file in files:
            pack.writestr(file.name, json.dumps(_submitted(file)))


def _submitted(file: Path) -> list[dict]:
    rows = read_json(file)
    try:
        return [{key: row[key] for key in _FIELDS} for row in rows]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"'{file}' is no list of results: {type(error).__name__}: {error}"
        ) from error
