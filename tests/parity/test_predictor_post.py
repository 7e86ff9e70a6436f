"""The original demo's choice and clean-up of the masks of one click."""

import numpy as np
import pytest

from semsam import SemSamPredictor

from .golden import SEMANTIC_SAM, cases


@pytest.mark.parametrize(("fixture", "what"), cases(SEMANTIC_SAM, "predictor_post", "masks"))
def test_the_masks_shown_for_a_click_are_the_original_ones(fixture, what):
    masks = fixture["in.logits"].numpy() > 0
    scores = fixture["in.ious"].flatten().numpy()
    for name, expected in fixture.meta["cases"].items():
        holes, islands, thresh = name.split("_")
        shown, kept, by_area = SemSamPredictor.process_multi_mask(
            masks, scores, float(thresh), int(holes), int(islands)
        )
        assert np.array_equal(shown, fixture[f"out.{name}.masks"].bool().numpy())
        assert [str(score) for score in kept] == expected["text_ious"]
        assert by_area.tolist() == expected["area_order_ids"]
