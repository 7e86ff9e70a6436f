"""CLIP's filter of candidate names, against Semantic-Segment-Anything."""

import json

import numpy as np
import pytest
import torch

from semsam.annotation.clip import ClipScorer, top_names
from semsam.annotation.crops import SMALL, cut, image_tensor, photo_boxes
from semsam.modeling.text.clip import load_clip

from .golden import GOLDEN
from .ssa_engine import as_read, engine_runs

TOPK = GOLDEN / "ssa/topk.json"
CPU = torch.device("cpu")


@pytest.mark.skipif(not TOPK.is_file(), reason=f"no {TOPK}")
@pytest.mark.parametrize("what", [pytest.param(0, id="ssa/topk")])
def test_the_best_names_are_the_original_s(what):
    for case in json.loads(TOPK.read_text()):
        found = top_names(case["class_list"], np.array(case["logits"]), case["top_k"])
        # The original gives a single name bare, and then fails on it.
        expected = case["result"] if isinstance(case["result"], list) else [case["result"]]
        assert found == expected


@pytest.mark.parametrize("run", engine_runs("clip"))
def test_scores_and_proposals_of_each_mask_are_the_original_s(run):
    scorer = ClipScorer(load_clip(str(run.models / "clip"), CPU, "CLIP"), batch_size=4)
    patches = cut(image_tensor(run.photo.image, CPU), photo_boxes(run.photo, SMALL))
    features = scorer.image_features([as_read(patch) for patch in patches])
    for mask, patch, feature in zip(run.trace, patches, features, strict=True):
        assert [*patch.shape[1:], 3] == mask["patch_small_shape"]
        names = mask["candidates"]
        logits = scorer.logits(feature[None], scorer.text_features(names))[0]
        np.testing.assert_allclose(logits, mask["clip_logits_sorted_by_name"], atol=1e-4)
        assert top_names(names, logits, mask["clip_topk"]) == mask["proposals"]
