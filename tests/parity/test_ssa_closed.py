"""Closed-set voting against Semantic-Segment-Anything: ``ssa/closed``."""

import json

import numpy as np
import pytest
from PIL import Image

from semsam.annotation.closed_set import ClosedSetLabeler, vote
from semsam.annotation.records import MaskedPhoto
from semsam.annotation.segmenters import Segmenter
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


def branch_cases():
    return [
        pytest.param(path, id=f"ssa/{path.name.removesuffix('_semantic_branch.npz')}/closed")
        for path in sorted(CLOSED.glob("*_semantic_branch.npz"))
    ]


def bgr_photo(name):
    """As the original read it."""
    return np.ascontiguousarray(np.array(Image.open(ENGINE / "data" / f"{name}.png"))[..., ::-1])


def segmenters(tag):
    """The segmenter of ``DATASET_MODEL`` in each of the folders of models; one of them was used."""
    dataset, model = tag.rsplit("_", 1)
    folders = sorted(ENGINE.glob(f"models_*/{model}_{dataset}"))
    return [Segmenter(str(folder), dataset, "cpu") for folder in folders]


@pytest.mark.parametrize("path", or_skip(branch_cases(), "closed"))
def test_class_maps_are_those_of_the_original(path):
    name, tag = path.name.removesuffix("_semantic_branch.npz").split("__")
    with np.load(path) as arrays:
        expected = arrays["class_ids"]
    found = [segmenter.segment([bgr_photo(name)])[0] for segmenter in segmenters(tag)]
    assert min((class_map != expected).mean() for class_map in found) < 1e-4


@pytest.mark.parametrize("path", or_skip(branch_cases(), "closed"))
def test_the_labeller_gives_the_original_s_result_from_end_to_end(path):
    name, tag = path.name.removesuffix("_semantic_branch.npz").split("__")
    original = read(CLOSED / f"{name}__{tag}_semantic.json")
    annotations = original["annotations"]
    photo = MaskedPhoto(name, bgr_photo(name), annotations)
    expected = decode_semantic_mask(original["semantic_mask"])
    with np.load(path) as arrays:
        class_map = arrays["class_ids"]
    best = None
    for segmenter in segmenters(tag):
        labels = ClosedSetLabeler([segmenter]).label([photo])[0]
        wrong = (decode_semantic_mask(labels.photo["semantic_mask"]) != expected).mean()
        if best is None or wrong < best[0]:
            best = wrong, labels.regions, segmenter.labels
    wrong, regions, names = best
    free = np.zeros(class_map.shape, dtype=bool)
    for index, (region, row) in enumerate(zip(regions, annotations, strict=True)):
        mask = photo.mask(index)
        allowed = allowed_names(class_map, mask, names)
        if len(allowed) > 1:
            free |= mask
        assert row["class_name"].strip() in allowed
        assert region["class_name"] in allowed
        assert region["class_proposals"] == [region["class_name"]]
    assert wrong <= free.mean() + 1e-4


def engine_map_cases():
    return [
        pytest.param((path, key), id=f"ssa/{path.stem.removeprefix('maps_')}/{key}_map")
        for path in sorted(ENGINE.glob("maps_*.npz"))
        for key in ("coco", "ade")
    ]


@pytest.mark.parametrize("case", or_skip(engine_map_cases(), "engine maps"))
def test_class_maps_are_those_of_the_original_engine(case):
    path, key = case
    _, mode, name = path.stem.split("_", 2)
    folder = ENGINE / f"models_{mode}" / f"oneformer_{'ade20k' if key == 'ade' else key}"
    labels = "ade20k" if key == "ade" else "coco_panoptic_refined"
    found = Segmenter(str(folder), labels, "cpu").segment([bgr_photo(name)])[0]
    with np.load(path) as expected:
        assert (found != expected[key]).mean() < 1e-4
