"""Captions of patches, against Semantic-Segment-Anything."""

import pytest
import torch

from semsam.annotation.captions import BlipCaptioner
from semsam.annotation.crops import LARGE, cut, image_tensor, photo_boxes

from .ssa_engine import as_read, engine_runs

CPU = torch.device("cpu")


@pytest.mark.parametrize("run", engine_runs("captions"))
def test_captions_are_the_original_s(run):
    # The fixtures were made with transformers 5: 20 tokens follow the first.
    captioner = BlipCaptioner(str(run.models / "blip"), CPU, max_new_tokens=20, batch_size=4)
    patches = cut(image_tensor(run.photo.image, CPU), photo_boxes(run.photo, LARGE))
    patches = [as_read(patch) for patch in patches]
    assert captioner(patches) == [mask["caption"] for mask in run.trace]
    for patch, mask in zip(patches, run.trace, strict=True):
        assert captioner.generate([patch]) == [mask["caption_ids"]]
