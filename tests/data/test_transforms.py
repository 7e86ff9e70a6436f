import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from semsam.data.run_length import RunLengthMasks
from semsam.data.transforms import IMAGE_PADDING, Geometry, LargeScaleJitter, ResizeShortestEdge

LENGTH = st.integers(1, 60)


@st.composite
def geometries(draw):
    """Any flip, resize (up or down), crop and padding."""
    size = st.tuples(LENGTH, LENGTH)
    resized, output = draw(size), draw(size)
    offset = tuple(
        draw(st.integers(0, max(r - o, 0))) for r, o in zip(resized, output, strict=True)
    )
    return Geometry(draw(size), resized, output, draw(st.booleans()), offset)


def by_pil(pixels, geometry, resample):
    """The same steps with PIL on decoded pixels, cropped but not padded."""
    image = Image.fromarray(pixels)
    if geometry.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = np.asarray(image.resize(geometry.resized[::-1], resample))
    (top, left), (height, width) = geometry.offset, geometry.content
    return image[top : top + height, left : left + width]


@given(geometries(), st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_masks_move_as_pil_moves_decoded_masks(geometry, seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((2, *geometry.source)) < rng.random()
    moved = geometry.apply_masks(RunLengthMasks.from_bitmaps(masks)).decode()
    height, width = geometry.content
    for mask, result in zip(masks, moved, strict=True):
        expected = by_pil(mask.astype(np.uint8), geometry, Image.Resampling.NEAREST)
        assert result.shape == geometry.output
        assert np.array_equal(result[:height, :width], expected)
        assert not result[height:].any()
        assert not result[:, width:].any()


@given(geometries())
@settings(max_examples=20, deadline=None)
def test_images_move_as_pil_moves_them_and_padding_is_grey(geometry):
    pixels = np.random.default_rng(0).integers(0, 256, (*geometry.source, 3), dtype=np.uint8)
    moved = geometry.apply_image(Image.fromarray(pixels))
    height, width = geometry.content
    expected = by_pil(pixels, geometry, Image.Resampling.BILINEAR)
    assert moved.shape == (*geometry.output, 3)
    assert np.array_equal(moved[:height, :width], expected)
    assert (moved[height:] == IMAGE_PADDING).all()
    assert (moved[:, width:] == IMAGE_PADDING).all()


def test_points_move_with_the_image():
    geometry = Geometry((10, 20), (20, 40), (16, 16), flip=True, offset=(2, 3))
    # x: 20 - 5 = 15, times 2, minus 3; y: 4 times 2, minus 2.
    assert geometry.apply_points(np.array([[5.0, 4.0]])).tolist() == [[27.0, 6.0]]


def test_boxes_move_with_the_image_and_are_cut_at_its_content():
    geometry = Geometry((10, 20), (20, 40), (30, 16), flip=True, offset=(2, 3))
    boxes = np.array([[5.25, 4, 9, 6], [0, 0, 20, 10], [0, 0, 2, 2]])
    # x: 20 - 9 = 11, times 2, minus 3 = 19, beyond the 16 columns; the content ends at row 18.
    assert geometry.apply_boxes(boxes).tolist() == [[16, 6, 16, 10], [0, 0, 16, 18], [16, 0, 16, 2]]
    still = Geometry((10, 20), (15, 30), (30, 30)).apply_boxes(boxes[:1])
    assert still.tolist() == [[7.875, 6, 13.5, 9]]


def test_padding_may_have_a_colour():
    geometry = Geometry((4, 4), (4, 4), (6, 5))
    moved = geometry.apply_image(Image.new("RGB", (4, 4)), padding=(1, 2, 3))
    assert moved[:4, :4].max() == 0
    assert (moved[4:] == (1, 2, 3)).all()
    assert (moved[:, 4:] == (1, 2, 3)).all()


def test_masks_of_another_size_are_rejected():
    masks = RunLengthMasks.from_bitmaps(np.ones((1, 3, 4), dtype=bool))
    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        Geometry((4, 3), (4, 3), (4, 3)).apply_masks(masks)


def test_jitter_scales_the_longest_side_to_the_square():
    jitter = LargeScaleJitter(side=100, min_scale=0.5, max_scale=2.0, flip_prob=0.5)
    rng = np.random.default_rng(0)
    drawn = [jitter((60, 120), rng) for _ in range(200)]
    longest = [max(geometry.resized) for geometry in drawn]
    assert min(longest) >= 50
    assert max(longest) <= 200
    assert 60 < np.mean([geometry.flip for geometry in drawn]) * 200 < 140
    for geometry in drawn:
        assert geometry.output == (100, 100)
        assert geometry.resized[0] == pytest.approx(geometry.resized[1] / 2, abs=1)
        room = [max(length - 100, 0) for length in geometry.resized]
        assert all(0 <= o <= r for o, r in zip(geometry.offset, room, strict=True))


@pytest.mark.parametrize(
    ("size", "resized"),
    [((480, 640), (800, 1067)), ((640, 480), (1067, 800)), ((300, 900), (444, 1333))],
)
def test_shortest_edge_is_reached_unless_the_longest_passes_its_limit(size, resized):
    assert ResizeShortestEdge(800, 1333)(size).resized == resized
