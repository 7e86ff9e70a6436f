"""SCA's large-scale jitter: our geometry, and the arithmetic of the original on top of it."""

import numpy as np
import pytest
import torch

from semsam.data.compat_lsj import denormalize, jitter_boxes, jitter_normalized, keep_boxes
from semsam.data.transforms import LargeScaleJitter

from .golden import GOLDEN, Fixture

SCA = "sca"
WHAT = ("transforms", "float", "image", "boxes", "kept")


def lsj_cases():
    paths = sorted((GOLDEN / SCA).glob("lsj*.json"))
    if not paths:
        skip = pytest.mark.skip(reason=f"no lsj*.json in {GOLDEN / SCA}")
        return [pytest.param(None, None, w, marks=skip, id=f"sca/none/lsj.{w}") for w in WHAT]
    return [
        pytest.param(fixture, case, what, id=f"sca/{fixture.name}/s{case['seed']}.{what}")
        for fixture in map(Fixture, paths)
        for case in fixture.meta["cases"]
        for what in WHAT
    ]


@pytest.mark.parametrize(("fixture", "case", "what"), lsj_cases())
def test_jitter_is_that_of_the_original(fixture, case, what):
    """The original draws from numpy's global generator, seeded right before."""

    def recorded(key: str) -> np.ndarray:
        return fixture[f"s{case['seed']}.{key}"].numpy()

    jitter = LargeScaleJitter(
        fixture.meta["image_size"], case["min_scale"], case["max_scale"], flip_prob=0.5
    )
    image = recorded("image")
    geometry = jitter(image.shape[:2], np.random.RandomState(case["seed"]))
    if what == "transforms":
        assert geometry.flip == ("HFlipTransform" in case["transforms"])
        assert geometry.output == recorded("out_image").shape[:2]
    elif what == "float":
        pixels = torch.from_numpy(jitter_normalized(image, geometry)).float()
        expected = torch.from_numpy(recorded("out_float"))
        torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=0)
    elif what == "image":
        # A value next to a whole number may be cut down to either side of it: the last bits of the
        # interpolation differ with the number of threads (equal with two, as recorded).
        pixels = denormalize(jitter_normalized(image, geometry)).astype(int)
        difference = np.abs(pixels - recorded("out_image"))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-3
    elif what == "boxes":
        assert np.array_equal(jitter_boxes(recorded("boxes"), geometry), recorded("boxes_raw"))
    else:
        boxes, kept = keep_boxes(jitter_boxes(recorded("boxes"), geometry), geometry.output)
        assert np.array_equal(boxes, recorded("boxes_kept"))
        assert np.array_equal(kept, recorded("keep_index"))
