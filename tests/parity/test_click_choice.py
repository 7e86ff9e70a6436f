"""The evaluation click against kornia 0.6.4's transform."""

import numpy as np
import pytest

from semsam.data.click_choice import choose_click, soft_distance_transform

from .golden import SEMANTIC_SAM, cases


def groups(fixture):
    return sorted(key.removeprefix("masks.") for key in fixture.tensors if key.startswith("masks."))


@pytest.mark.parametrize(("fixture", "what"), cases(SEMANTIC_SAM, "click_choice", "click"))
def test_click_is_the_original_pixel(fixture, what):
    for group in groups(fixture):
        for mask, distance, theirs in zip(
            *(fixture[f"{name}.{group}"] for name in ("masks", "dt", "click_xy")), strict=True
        ):
            x, y = choose_click(mask.bool().numpy())
            # Between pixels of equal surroundings the original's choice is a matter of rounding.
            tie = mask[y, x] and distance.max() - distance[y, x] < 1e-6
            assert [x, y] == theirs.tolist() or tie


@pytest.mark.parametrize(("fixture", "what"), cases(SEMANTIC_SAM, "click_choice", "distance"))
def test_distances_are_the_original_ones(fixture, what):
    for group in groups(fixture):
        expected = fixture[f"dt.{group}"].numpy()
        masks = fixture[f"masks.{group}"].bool().numpy()
        ours = np.stack([soft_distance_transform(mask) for mask in masks])
        assert np.abs(ours - expected).max() < 1e-4
