"""CLIPSeg's decision among the proposals, against Semantic-Segment-Anything."""

import numpy as np
import pytest
import torch

from semsam.annotation.clipseg import ClipSegDecider
from semsam.annotation.crops import LARGE, cut, image_tensor, photo_boxes

from .ssa_engine import decisive, engine_runs, misread

CPU = torch.device("cpu")
#: Rows and columns, about, of which the fixtures store logits.
STORED = 16


@pytest.mark.parametrize("run", engine_runs("clipseg"))
def test_logits_and_names_of_each_mask_are_the_original_s(run):
    decider = ClipSegDecider(str(run.models / "clipseg"), CPU, batch_size=4)
    boxes = photo_boxes(run.photo, LARGE)
    patches = cut(image_tensor(run.photo.image, CPU), boxes)
    names = [mask["proposals"] for mask in run.trace]

    def window(i):
        return cut(run.photo.mask(i), boxes[i : i + 1])[0]

    winners = decider(patches, names, window)
    for i, (patch, mask) in enumerate(zip(patches, run.trace, strict=True)):
        assert [*patch.shape[1:], 3] == mask["patch_huge_shape"]
        if misread(patch):
            continue
        (logits,) = decider.logits([patch], names[i : i + 1])
        steps = [max(1, side // STORED) for side in patch.shape[1:]]
        sampled = logits[:, :: steps[0], :: steps[1]].numpy()
        stored = run.maps[f"clipseg_sub_{i}"]
        # The random weights give logits of up to 300: float32 holds them to 1e-6 of that.
        np.testing.assert_allclose(sampled, stored, atol=max(1e-4, 1e-5 * np.abs(stored).max()))
        if decisive(logits, window(i)):
            assert names[i][winners[i]] == mask["class_name"]
