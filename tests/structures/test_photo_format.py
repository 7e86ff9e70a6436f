import numpy as np
import pytest

from semsam.structures import PhotoFormat


@pytest.mark.parametrize(
    ("size", "expected"), [((50, 80), (56, 90)), ((80, 50), (90, 56)), ((80, 80), (64, 64))]
)
def test_the_longer_side_is_capped_and_the_shorter_follows(size, expected):
    photo = np.zeros((*size, 3), dtype=np.uint8)
    assert PhotoFormat(64, max_size=90).resize(photo).shape == (*expected, 3)


def test_a_click_is_a_box_of_the_stated_share():
    assert PhotoFormat(click_ratio=0.01).click_extent((50, 200)) == (2.0, 0.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"min_size": 0}, "positive"),
        ({"max_size": 0}, "positive"),
        ({"interpolation": "cubic"}, "bicubic, bilinear, not 'cubic'"),
    ],
)
def test_a_format_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        PhotoFormat(**wrong)
