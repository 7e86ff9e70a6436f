"""The annotation engine end to end, against Semantic-Segment-Anything: ``ssa/engine``."""

import numpy as np
import pytest

from semsam.annotation.crops import LARGE, cut, image_tensor, photo_boxes
from semsam.annotation.open_set import OpenSetLabeler
from semsam.config import get_cfg

from .ssa_engine import decisive, engine_runs, misread


@pytest.fixture(scope="module")
def labelers():
    """Labellers of the folders that are asked for, built once."""
    built = {}

    def get(folder):
        if folder not in built:
            cfg = get_cfg()
            cfg.MODEL.DEVICE = "cpu"
            node = cfg.ANNOTATION.OPEN_SET
            node.SEGMENTERS = [str(folder / "oneformer_coco"), str(folder / "oneformer_ade20k")]
            node.CAPTIONER, node.CLIP = str(folder / "blip"), str(folder / "clip")
            node.CLIPSEG = str(folder / "clipseg")
            # The original's masks were named one by one.
            node.BATCH_SIZE = 4
            built[folder] = OpenSetLabeler(cfg)
        return built[folder]

    return get


def is_tied(values):
    """Whether two ids are most frequent: the original then takes either."""
    counts = np.sort(np.bincount(values))
    return len(counts) > 1 and counts[-1] == counts[-2]


@pytest.mark.parametrize("run", engine_runs("engine"))
def test_names_and_proposals_of_each_mask_are_the_original_s(run, labelers):
    labeler = labelers(run.models)
    (labels,) = labeler.label([run.photo])
    boxes = photo_boxes(run.photo, LARGE)
    patches = cut(image_tensor(run.photo.image, labeler.scorer.device), boxes)
    compared = 0
    for i, (found, expected) in enumerate(zip(labels.regions, run.output, strict=True)):
        mask = run.photo.mask(i)
        if misread(patches[i]) or any(is_tied(run.maps[key][mask]) for key in ("coco", "ade")):
            continue
        compared += 1
        # The original's table has "bed " for bed.
        proposals = [name.strip() for name in expected["class_proposals"]]
        assert found["class_proposals"] == proposals
        (logits,) = labeler.decider.logits(patches[i : i + 1], [proposals])
        if decisive(logits, cut(mask, boxes[i : i + 1])[0]):
            assert found["class_name"] == expected["class_name"].strip()
    assert compared > len(run.output) // 2
