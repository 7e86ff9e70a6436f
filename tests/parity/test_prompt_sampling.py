"""Training prompts against the original's, with its recorded draws."""

import numpy as np
import pytest
import torch

from semsam.data.prompt_sampling import draw_prompts
from semsam.data.run_length import RunLengthMasks
from semsam.structures.prompts import CLICK_EXTENT
from tests.parity.golden import SEMANTIC_SAM, Fixture, cases


class RecordedDraws:
    """Plays back the draws of a training fixture in the order in which they were made."""

    def __init__(self, fixture: Fixture):
        # The first integer chose a number of boxes that the original then ignores.
        self.python = list(fixture.meta["python_rng_calls"][1:])
        self.order = fixture["rng.000.randperm"].numpy()
        self.noise = fixture["rng.001.rand_like"][0].numpy() * 2 - 1

    def permutation(self, number):
        assert number == len(self.order)
        return self.order

    def integers(self, low, high):
        name, first, last, value = self.python.pop(0)
        assert (name, first, last) == ("randint", low, high - 1)
        return value

    def shuffle(self, indices):
        name, before, after = self.python.pop(0)
        assert (name, before) == ("shuffle", indices.tolist())
        indices[:] = after

    def uniform(self, low, high, size):
        assert (low, high, size) == (-1.0, 1.0, self.noise.shape)
        return self.noise


def draw(fixture: Fixture, noise: float):
    decoder = fixture.meta["config"]["DECODER"]
    masks = RunLengthMasks.from_bitmaps(fixture["in.gt_masks"].bool().numpy())
    draws = RecordedDraws(fixture)
    prompts, targets = draw_prompts(
        masks,
        decoder["MAX_NUM_INSTANCE"],
        decoder["NUM_INTERACTIVE_TOKENS"],
        draws,
        noise=noise,
    )
    assert not draws.python, "a recorded draw was not used"
    return prompts, targets


@pytest.mark.parametrize(
    ("fixture", "what"), cases(SEMANTIC_SAM, "training", "points", "noise", "seeds", "levels")
)
def test_prompts_are_those_of_the_original(fixture, what):
    height, width = fixture["in.gt_masks"].shape[-2:]
    frame = torch.tensor([width, height] * 2)
    clicks = fixture["tgt.points"]
    if what in ("points", "noise"):
        scale = fixture.meta["config"]["DECODER"]["DN_NOISE_SCALE"] if what == "noise" else 0.0
        prompts, _ = draw(fixture, noise=scale)
        drawn = torch.cat([prompts.points[0, :, 0], prompts.extents[0]], dim=1) / frame
        if what == "noise":
            reach = torch.cat([clicks[:, 2:] / 2, clicks[:, 2:]], dim=1) * 0.01
            signs = fixture["rng.001.rand_like"][0] * 2 - 1
            clicks = (clicks + signs * reach * scale).clamp(0, 1)
        torch.testing.assert_close(drawn, clicks, atol=1e-6, rtol=0)
        assert np.allclose(clicks[:, 2] * width, CLICK_EXTENT, atol=0.1)
    elif what == "seeds":
        _, targets = draw(fixture, noise=0.4)
        masks = fixture["in.gt_masks"][targets.seeds]
        assert torch.equal(masks, fixture["tgt.masks"])
    else:
        _, targets = draw(fixture, noise=0.4)
        levels = [[i for i in row if i >= 0] for row in targets.levels.tolist()]
        assert levels == fixture.meta["level_target_inds"]
