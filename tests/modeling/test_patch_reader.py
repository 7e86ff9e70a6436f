"""Patches, against transformers' image processors with one at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BlipImageProcessor, CLIPImageProcessor, SegformerImageProcessor

from semsam.annotation.crops import image_tensor
from semsam.modeling.patch_reader import PatchReader

PROCESSORS = {
    "CLIP": CLIPImageProcessor(),
    "BLIP": BlipImageProcessor(),
    "bilinear": BlipImageProcessor(resample=2, size={"height": 100, "width": 37}),
    "odd crop": CLIPImageProcessor(
        size={"shortest_edge": 50}, crop_size={"height": 47, "width": 36}
    ),
    "crop with margins": CLIPImageProcessor(
        size={"height": 40, "width": 50}, crop_size={"height": 45, "width": 46}
    ),
    "not rescaled": CLIPImageProcessor(do_rescale=False),
    "not normalised": CLIPImageProcessor(do_normalize=False),
}
SIDES = st.one_of(st.integers(1, 30), st.integers(30, 600))


def patches_of(sizes: list) -> list[torch.Tensor]:
    """Views of a photo, as the labellers cut them."""
    generator = torch.Generator().manual_seed(0)
    photo = torch.randint(0, 256, (1000, 1000, 3), generator=generator, dtype=torch.uint8)
    views = image_tensor(photo.numpy(), torch.device("cpu"))
    return [views[:, 3 : 3 + h, 5 : 5 + w] for h, w in sizes]


def read_alone(processor, patch: torch.Tensor) -> torch.Tensor:
    inputs = processor(images=patch, input_data_format="channels_first", return_tensors="pt")
    return inputs["pixel_values"][0]


@pytest.mark.parametrize("name", PROCESSORS)
@settings(max_examples=8, deadline=None)
@given(sizes=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=5))
def test_patches_have_the_bits_that_the_processor_gives_each(name, sizes):
    # What is longer still has a test of its own: the processor needs gigabytes for it.
    patches = [p for p in patches_of(sizes) if max(p.shape[1:]) <= 40 * min(p.shape[1:])]
    patches.extend(patches_of([(17, 23)]))
    expected = torch.stack([read_alone(PROCESSORS[name], patch) for patch in patches])
    assert torch.equal(PatchReader(PROCESSORS[name])(patches), expected)


@pytest.mark.parametrize("size", [(2, 900), (900, 2), (1, 150), (1, 1)])
def test_extreme_patches_have_the_bits_that_the_processor_gives(size):
    (patch,) = patches_of([size])
    found = PatchReader(PROCESSORS["CLIP"])([patch])
    assert torch.equal(found[0], read_alone(PROCESSORS["CLIP"], patch))


def test_of_a_line_across_a_photo_only_what_the_crop_keeps_is_computed():
    line = torch.arange(40000).to(torch.uint8).expand(3, 1, 40000)
    # Resized it would have 6 * 10^9 pixels.
    found = PatchReader(PROCESSORS["CLIP"])([line])
    assert torch.equal(found[0], read_alone(PROCESSORS["CLIP"], line[..., 19950:20050]))


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("do_pad", {"do_pad": True}),
        ("do_resize", {"do_resize": False}),
        ("resample", {"resample": 0}),
        ("size", {"size": {"shortest_edge": 32, "longest_edge": 64}}),
        ("do_center_crop", {"do_center_crop": False}),
    ],
)
def test_a_setting_that_is_not_followed_is_an_error_that_names_it(setting, values):
    with pytest.raises(ValueError, match=f"CLIPImageProcessor: {setting} is"):
        PatchReader(CLIPImageProcessor(**values))


def test_a_processor_with_a_step_of_its_own_is_an_error_that_names_both():
    with pytest.raises(ValueError, match="SegformerImageProcessor: _preprocess"):
        PatchReader(SegformerImageProcessor())
