"""Semantic segmentation metrics against Semantic-Segment-Anything: ``ssa/eval``."""

import json
import math

import numpy as np
import pytest

from semsam.data.label_maps import label_map
from semsam.data.semantic_mask import read_semantic_mask
from semsam.evaluation.sem_seg import SemSegEvaluator

from .golden import GOLDEN

EVAL = GOLDEN / "ssa" / "eval"
#: Files of truth and of results are named alike but for these.
SUFFIXES = {
    "ade20k": (".png", "_semantic.json"),
    "cityscapes": ("_gtFine_labelTrainIds.png", "_leftImg8bit_semantic.json"),
    "foggy_driving": ("_gtFine_labelTrainIds.png", "_leftImg8bit_semantic.json"),
}


def cases():
    path = EVAL / "expected.json"
    if not path.is_file():
        skip = pytest.mark.skip(reason=f"no {path}")
        return [pytest.param(None, None, marks=skip, id="ssa/none/eval")]
    return [
        pytest.param(dataset, expected, id=f"ssa/{dataset}/eval")
        for dataset, expected in json.loads(path.read_text()).items()
    ]


@pytest.mark.parametrize(("dataset", "expected"), cases())
def test_metrics_are_those_of_the_original(dataset, expected):
    names = list(label_map(dataset).values())
    evaluator = SemSegEvaluator(names)
    rule = {"reduce_zero_label": dataset == "ade20k"}
    truth_suffix, suffix = SUFFIXES[dataset]
    for path in sorted((EVAL / dataset / "pred").rglob(f"*{suffix}")):
        place = path.relative_to(EVAL / dataset / "pred")
        truth = EVAL / dataset / "gt" / place.with_name(place.name.replace(suffix, truth_suffix))
        record = {"file_name": str(path), "sem_seg_file_name": str(truth), **rule}
        evaluator.process([record], [{"sem_seg": read_semantic_mask(path)}])
    found = evaluator.evaluate()["sem_seg"]
    metrics = expected["metrics"]
    for name, iou in zip(names, metrics["IoU"], strict=True):
        value = found.get(f"IoU-{name}")
        # The original sums in float32.
        assert value is None if _absent(iou) else value == pytest.approx(100 * iou, abs=1e-3)
    assert found["aAcc"] == pytest.approx(100 * metrics["aAcc"], abs=1e-3)
    for key, column in (("mIoU", "IoU"), ("mAcc", "Acc")):
        known = [value for value in metrics[column] if not _absent(value)]
        assert found[key] == pytest.approx(100 * np.mean(known), abs=1e-3)


def _absent(value):
    return value is None or math.isnan(value)
