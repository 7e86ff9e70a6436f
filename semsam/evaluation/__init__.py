"""Measures of predictions, and the loop that takes them over a dataset."""

from .build import EVALUATOR, build_evaluator
from .evaluator import DatasetEvaluator, DatasetEvaluators, inference_on_dataset, print_table

__all__ = [
    "EVALUATOR",
    "DatasetEvaluator",
    "DatasetEvaluators",
    "build_evaluator",
    "inference_on_dataset",
    "print_table",
]
