import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from semsam.annotation.clipseg import ClipSegDecider

from .models import TEXT_LIMIT, write_clipseg

CPU = torch.device("cpu")
NAMES = [["a red car", "dog", "the wall"], ["dog"], ["the wall", "a red car"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clipseg(tmp_path_factory.mktemp("clipseg"))


@pytest.fixture(scope="module")
def decider(folder):
    return ClipSegDecider(folder, CPU, batch_size=2)


@pytest.fixture(scope="module")
def patches():
    generator = torch.Generator().manual_seed(0)
    sizes = [(20, 30), (3, 7), (90, 61)]
    return [torch.randint(0, 256, (3, *s), generator=generator, dtype=torch.uint8) for s in sizes]


def whole_model(folder, patch, names):
    """The model as transformers calls it: the patch once for each name."""
    from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

    model = CLIPSegForImageSegmentation.from_pretrained(folder).eval()
    processor = CLIPSegProcessor.from_pretrained(folder)
    processor.image_processor.do_resize = False
    inputs = processor(
        text=names,
        images=[patch.permute(1, 2, 0).numpy()] * len(names),
        padding=True,
        return_tensors="pt",
        input_data_format="channels_last",
    )
    pixels = interpolate(inputs["pixel_values"], (512, 512), mode="bilinear")
    with torch.no_grad():
        logits = model(**{**inputs, "pixel_values": pixels}).logits
    return interpolate(logits.view(1, len(names), 512, 512), patch.shape[1:], mode="bilinear")[0]


def test_logits_are_those_of_the_model_called_once_a_name(folder, decider, patches):
    found = list(decider.logits(patches, NAMES))
    for patch, names, logits in zip(patches, NAMES, found, strict=True):
        expected = whole_model(folder, patch, names)
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_the_winner_has_most_pixels_inside_the_mask(folder, decider, patches):
    generator = np.random.default_rng(0)
    masks = [generator.random(patch.shape[1:]) < 0.3 for patch in patches]
    found = decider(patches, NAMES, masks.__getitem__)
    for patch, names, mask, winner in zip(patches, NAMES, masks, found, strict=True):
        best = whole_model(folder, patch, names).argmax(0)[torch.from_numpy(mask)]
        counts = torch.bincount(best, minlength=len(names)).tolist()
        assert counts[winner] == max(counts)


def test_a_mask_without_a_pixel_in_the_patch_has_no_winner(decider, patches):
    masks = [np.zeros(patch.shape[1:], bool) for patch in patches]
    masks[1][:] = True
    assert decider(patches, NAMES, masks.__getitem__) == [None, 0, None]


def test_a_phrase_beyond_the_text_limit_is_cut_off(decider, patches):
    long = "a" * (TEXT_LIMIT + 5)
    (logits,) = decider.logits(patches[:1], [[long, long + "b"]])
    torch.testing.assert_close(logits[0], logits[1])


def test_nothing_is_decided_of_no_patches(decider):
    assert decider([], [], lambda i: None) == []
