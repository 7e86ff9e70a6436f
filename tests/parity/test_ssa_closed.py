"""Closed-set voting against Semantic-Segment-Anything: ``ssa/closed``."""

import json

import numpy as np
import pytest

from semsam.annotation.closed_set import vote
from semsam.data.label_maps import label_map
from semsam.data.run_length import RunLengthMasks
from semsam.data.semantic_mask import decode_semantic_mask, encode_semantic_mask

from .golden import GOLDEN

CLOSED = GOLDEN / "ssa" / "closed"
ENGINE = GOLDEN / "ssa" / "engine"


def or_skip(cases, what):
    """Parameters with ids, or one that skips and says why."""
    if cases:
        return cases
    reason = f"no {what} in {GOLDEN / 'ssa'}"
    return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id=f"ssa/none/{what}")]


def read(path):
    return json.loads(path.read_text())


def vote_cases():
    path = CLOSED / "vote_inputs.json"
    found = read(path) if path.is_file() else []
    return [pytest.param(case, id=f"ssa/{case['name']}/vote") for case in found]


def by_area(annotations):
    return sorted(range(len(annotations)), key=lambda i: -annotations[i]["area"])


def allowed_names(class_map, mask, names):
    """Names of all classes that are most frequent in a mask."""
    counts = np.bincount(class_map[mask])
    return {names[i] for i in np.flatnonzero(counts == counts.max())}


@pytest.mark.parametrize("case", or_skip(vote_cases(), "vote_inputs.json"))
def test_votes_are_those_of_the_original(case):
    with np.load(CLOSED / "vote_maps.npz") as maps:
        class_map = maps[case["name"]]
    names = label_map(case["dataset"])
    expected = read(CLOSED / f"{case['name']}_semantic.json")
    annotations = case["input_annotations"]
    codes = [item["segmentation"] for item in annotations]
    masks = RunLengthMasks.from_coco(codes, class_map.shape)
    votes = vote(class_map, masks)
    order = by_area(annotations)
    bitmaps = masks.decode()
    free = np.zeros(class_map.shape, dtype=bool)
    for index, original in zip(order, expected["annotations"], strict=True):
        assert original["segmentation"] == codes[index]
        # The original's table says "bed ".
        name = original["class_name"].strip()
        if case["tied_flags_input_order"][index]:
            free |= bitmaps[index]
            assert name in allowed_names(class_map, bitmaps[index], names)
        else:
            assert names[votes.classes[index]] == name
    painted = decode_semantic_mask(expected["semantic_mask"])
    assert np.array_equal(votes.class_map[~free], painted[~free])
    assert encode_semantic_mask(painted) == expected["semantic_mask"]


def engine_cases():
    return [
        pytest.param((path, mode), id=f"ssa/{mode}_{path.name.split('_semantic')[0]}/names")
        for mode in ("base", "light")
        for path in sorted((ENGINE / f"out_{mode}").glob("*_semantic.json"))
    ]


@pytest.mark.parametrize("case", or_skip(engine_cases(), "engine"))
def test_names_of_both_maps_are_among_the_original_engine_s_candidates(case):
    path, mode = case
    name = path.name.removesuffix("_semantic.json")
    trace = read(ENGINE / f"trace_{mode}_{name}.json")["masks"]
    codes = [item["segmentation"] for item in read(path)["annotations"]]
    with np.load(ENGINE / f"maps_{mode}_{name}.npz") as maps:
        for key, table in (("coco", "coco_panoptic_refined"), ("ade", "ade20k")):
            masks = RunLengthMasks.from_coco(codes, maps[key].shape)
            votes = vote(maps[key], masks)
            for index, mask in enumerate(trace):
                bitmap = masks.select(np.array([index])).decode()[0]
                allowed = allowed_names(maps[key], bitmap, label_map(table))
                assert label_map(table)[votes.classes[index]] in allowed
                assert allowed & {candidate.strip() for candidate in mask["candidates"]}
