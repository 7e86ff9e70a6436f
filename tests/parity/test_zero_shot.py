"""Classes and the choice of masks against Umar's open-vocabulary SAM."""

import json
import math

import numpy as np
import pytest
import torch

from semsam.inference.mask_filter import filter_masks
from semsam.modeling.text.classifier import Classifier, top_classes, unit

from .golden import GOLDEN

FOLDER = GOLDEN / "open_vocabulary_sam"


def needs(name):
    return pytest.mark.skipif(not (FOLDER / name).is_file(), reason=f"no {FOLDER / name}")


@needs("zero_shot.json")
@pytest.mark.parametrize("what", [pytest.param(0, id="open_vocabulary_sam/zero_shot")])
def test_the_best_classes_are_the_original_s(what):
    told = json.loads((FOLDER / "zero_shot.json").read_text())
    arrays = {k: torch.from_numpy(v) for k, v in np.load(FOLDER / "zero_shot.npz").items()}
    classifier = Classifier(tuple(told["classes"]), arrays["weights"], "original")
    for case in told["results"]:
        found = top_classes(
            unit(arrays["features"][case["feature"]]),
            classifier,
            case["k"],
            scale=math.e,
            reduction=case["reduction"],
            softmax=case["apply_softmax"],
            background_scale=case["background_scalar"],
        )
        assert found.ids.tolist() == case["ids"]
        assert [classifier.names[i] for i in found.ids.tolist()] == case["classes"]
        assert found.values.tolist() == pytest.approx(case["probs"], abs=1e-4)


@needs("filter_masks.json")
@pytest.mark.parametrize("what", [pytest.param(0, id="open_vocabulary_sam/filter_masks")])
def test_the_masks_that_stay_are_the_original_s(what):
    ours = {
        "scoring_method": "scoring",
        "nms_type": "nms",
        "semantic_threshold": "score_thresh",
        "pred_iou_thresh": "pred_iou_thresh",
        "stability_score_thresh": "stability_score_thresh",
        "cosine_sim_pred_threshold": "cosine_thresh",
        "area_threshold": "area_thresh",
        "box_threshold": "box_thresh",
        "nms_threshold": "nms_thresh",
        "total_score_threshold": "total_score_thresh",
    }
    for case in json.loads((FOLDER / "filter_masks.json").read_text()):
        settings = {ours[key]: value for key, value in case["kwargs"].items()}
        if "nms" in settings:
            settings["nms"] = "class" if "category" in settings["nms"] else settings["nms"]
        records = [
            {**record, "class_name": record["category"], "class_score": record["score"]}
            for record in case["input"]
        ]
        found = filter_masks(records, case["image_shape"], **settings)
        assert [record["id"] for record in found] == [each["id"] for each in case["output"]]
        assert [record["total_score"] for record in found] == pytest.approx(
            [each["total_score"] for each in case["output"]]
        )
