"""Images that are resized together, against torchvision with one on a CPU."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, resize

from semsam.layers import resampling
from semsam.layers.resampling import Axis, resize_together

MODES = {1: InterpolationMode.BILINEAR, 2: InterpolationMode.BICUBIC}
SIDES = st.one_of(st.integers(1, 40), st.integers(1, 600))


def images_of(sizes: list, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # Black and white next to each other make kernels overshoot.
    return [
        torch.randint(0, 2, (3, *size), generator=generator, dtype=torch.uint8) * 255
        if seed % 2
        else torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        for size in sizes
    ]


def together(images: list, sizes: list, shape: tuple[int, int], radius: int) -> torch.Tensor:
    given_sizes, resized = np.array([image.shape[1:] for image in images]), np.array(sizes)
    y, x = (Axis(given_sizes[:, i], resized[:, i], shape[i], radius) for i in range(2))
    return resize_together(images, y, x)


def one_by_one(images: list, sizes: list, shape: tuple[int, int], radius: int) -> torch.Tensor:
    resized = [
        resize(image, list(size), interpolation=MODES[radius], antialias=True)
        for image, size in zip(images, sizes, strict=True)
    ]
    return torch.stack([middle(image, shape) for image in resized])


def middle(image: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """The crop of transformers, which rounds down where torchvision rounds to even."""
    for axis, wanted in ((1, shape[0]), (2, shape[1])):
        spare = image.shape[axis] - wanted
        if spare > 0:
            image = image.narrow(axis, spare // 2, wanted)
    return center_crop(image, list(shape))


# From 2 on: torch's kernel fails where an image of one pixel is to come out.
@settings(max_examples=60, deadline=None)
@given(
    given_sizes=st.lists(
        st.tuples(SIDES, st.one_of(SIDES, st.integers(1, 900))), min_size=1, max_size=4
    ),
    resized=st.tuples(st.integers(2, 260), st.integers(2, 260)),
    shape=st.tuples(st.integers(1, 250), st.integers(1, 250)),
    radius=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_images_of_any_sizes_have_the_bits_of_torch_s_kernel(
    given_sizes, resized, shape, radius, seed
):
    images = images_of(given_sizes, seed)
    sizes = [resized] * len(images)
    expected = one_by_one(images, sizes, shape, radius)
    assert torch.equal(together(images, sizes, shape, radius), expected)


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("factor", [2, 3.9, 4.1, 5.78, 9, 40])
def test_sums_that_float32_could_not_hold_are_exact(factor, radius):
    # Seldom does the last bit of a sum decide: many rows.
    (image,) = images_of([(4000, round(30 * factor))])
    size = (4000, 30)
    found = together([image], [size], size, radius)
    assert torch.equal(found, one_by_one([image], [size], size, radius))


def test_images_that_do_not_fit_into_a_table_go_in_pieces(monkeypatch):
    monkeypatch.setattr(resampling, "_LIMIT", 2**12)
    images = images_of([(50, 70), (9, 300), (120, 4), (52, 71)])
    sizes = [(40, 60)] * 4
    assert torch.equal(together(images, sizes, (32, 32), 2), one_by_one(images, sizes, (32, 32), 2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_bits_of_a_cpu():
    images = images_of([(50, 70), (600, 900), (1, 1), (2, 400)])
    sizes = [(224, 300)] * 4
    found = together([image.cuda() for image in images], sizes, (224, 224), 2)
    assert torch.equal(found.cpu(), one_by_one(images, sizes, (224, 224), 2))
