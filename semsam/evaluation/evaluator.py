"""What an evaluator is, and how one is fed with a model's predictions on a dataset."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from tqdm import tqdm

from semsam.utils import comm

logger = logging.getLogger(__name__)

T = TypeVar("T")
Results = dict[str, dict[str, float]]


class DatasetEvaluator:
    """Takes in predictions batch by batch, then sums them up; detectron2's class of the same name.

    Under several processes each takes in its own share, and ``evaluate`` gives the same to all.
    """

    def reset(self) -> None:
        """Forget what was taken in."""
        raise NotImplementedError

    def pending(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Records of a batch that the model has to see; to resume is to leave some out."""
        return inputs

    def process(self, inputs: list[dict[str, Any]], outputs: list[Any]) -> None:
        """Take in the records of a batch and what the model made of them, in the same order."""
        raise NotImplementedError

    def evaluate(self) -> Results:
        """{task: {metric: value}}, over all ranks and the same on each."""
        raise NotImplementedError


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators that share one pass over the dataset.

    Args:
        evaluators: their tasks have different names.
    """

    def __init__(self, evaluators: Sequence[DatasetEvaluator]) -> None:
        self._evaluators = evaluators

    def reset(self) -> None:
        """Reset all."""
        for evaluator in self._evaluators:
            evaluator.reset()

    def pending(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Records that any of them still needs."""
        needed = {id(r) for evaluator in self._evaluators for r in evaluator.pending(inputs)}
        return [record for record in inputs if id(record) in needed]

    def process(self, inputs: list[dict[str, Any]], outputs: list[Any]) -> None:
        """Hand the batch to all."""
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> Results:
        """The tasks of all.

        Raises:
            RuntimeError: if two evaluators report a task of the same name.
        """
        results: Results = {}
        for evaluator in self._evaluators:
            for task, metrics in evaluator.evaluate().items():
                if task in results:
                    raise RuntimeError(f"two evaluators report the task '{task}'; use one of them")
                results[task] = metrics
        return results


def inference_on_dataset(
    model: Callable[[list[dict[str, Any]]], Any],
    loader: Iterable[list[dict[str, Any]]],
    evaluator: DatasetEvaluator | Sequence[DatasetEvaluator],
) -> Results:
    """Run a model over this rank's batches and evaluate what it predicts.

    Args:
        model: called with each batch without gradients; a module is in evaluation mode meanwhile.
        loader: batches of records; has a length.
        evaluator: one, or several that see the same predictions.

    Returns:
        What ``evaluator.evaluate()`` gives.
    """
    if isinstance(evaluator, Sequence):
        evaluator = DatasetEvaluators(evaluator)
    evaluator.reset()
    images, waited, start = 0, 0.0, time.perf_counter()
    with _evaluation_mode(model), torch.no_grad():
        before = start
        for inputs in _progress(loader):
            waited += time.perf_counter() - before
            if inputs := evaluator.pending(inputs):
                evaluator.process(inputs, model(inputs))
            images += len(inputs)
            before = time.perf_counter()
    seconds = time.perf_counter() - start
    logger.info(
        "%d images on this rank in %.1f s (%.3f s each, of which %.3f s waiting for data)",
        images,
        seconds,
        seconds / max(images, 1),
        waited / max(images, 1),
    )
    return evaluator.evaluate()


def gather_by_image(values: Mapping[Any, T]) -> dict[Any, T]:
    """Join what the ranks know of their images; an image that several saw counts once.

    Args:
        values: by ``image_id``, picklable.

    Returns:
        The values of all ranks, the same and in the same order on each, whatever their number.

    Raises:
        RuntimeError: if there is no image on any rank.
    """
    joined: dict[Any, T] = {}
    for part in comm.all_gather(dict(values)):
        for image_id, value in part.items():
            joined.setdefault(image_id, value)
    if not joined:
        raise RuntimeError("nothing was evaluated: the loader gave no usable image")
    return dict(sorted(joined.items(), key=lambda item: str(item[0])))


def print_table(results: Mapping[str, Mapping[str, float]]) -> None:
    """Log results as a table: a row a metric, a column a task."""
    logger.info("results:\n%s", format_table(results))


def format_table(results: Mapping[str, Mapping[str, float]]) -> str:
    """``print_table`` as text; a metric that a task lacks is left blank."""
    tasks = list(results)
    metrics = dict.fromkeys(metric for task in tasks for metric in results[task])
    rows = [["", *tasks]]
    for metric in metrics:
        values = (results[task].get(metric) for task in tasks)
        rows.append([metric, *("" if v is None else _format(v) for v in values)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |"
        for row in rows
    )


def _format(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.2f}"


@contextlib.contextmanager
def _evaluation_mode(model: Callable) -> Iterator[None]:
    """Switch a module to evaluation; afterwards each submodule has the mode that it had."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _progress(loader: Iterable[T]) -> Iterable[T]:
    """A bar with the time left, on the main process; written seldom where it goes to a file."""
    return tqdm(
        loader,
        desc="evaluation",
        unit="batch",
        mininterval=0.2 if sys.stderr.isatty() else 30.0,
        disable=not comm.is_main_process(),
    )
