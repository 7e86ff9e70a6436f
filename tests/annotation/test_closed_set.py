import numpy as np
import pytest

from semsam.annotation.closed_set import vote
from semsam.data.run_length import RunLengthMasks


def bitmaps(*masks):
    return RunLengthMasks.from_bitmaps(np.array(masks, dtype=bool))


def test_a_mask_takes_its_most_frequent_class():
    votes = vote(np.array([[4, 4, 7], [4, 9, 9]]), bitmaps([[1, 1, 0], [1, 1, 0]]))
    assert votes.classes == [4]
    assert votes.shares == [0.75]
    assert votes.class_map.tolist() == [[4, 4, 7], [4, 4, 9]]


def test_small_masks_are_painted_last_whatever_their_order():
    class_map = np.array([[1, 1, 1, 2]])
    small, large = [[0, 0, 0, 1]], [[1, 1, 1, 1]]
    for order in ([small, large], [large, small]):
        assert vote(class_map, bitmaps(*order)).class_map.tolist() == [[1, 1, 1, 2]]


def test_of_masks_of_equal_area_the_later_is_painted_last():
    votes = vote(np.array([[1, 1, 2, 2, 2]]), bitmaps([[1, 1, 1, 0, 0]], [[0, 0, 1, 1, 1]]))
    assert votes.classes == [1, 2]
    assert votes.class_map.tolist() == [[1, 1, 2, 2, 2]]


def test_votes_count_the_segmenter_s_map_not_the_painted_one():
    votes = vote(np.array([[1, 1, 1, 2, 2]]), bitmaps([[1, 1, 1, 1, 1]], [[0, 0, 1, 1, 1]]))
    assert votes.classes == [1, 2]


def test_of_equally_frequent_classes_the_lowest_id_wins():
    assert vote(np.array([[9, 3, 5]]), bitmaps([[1, 1, 1]])).classes == [3]


def test_a_mask_without_pixels_has_no_class():
    votes = vote(np.array([[1, 2]]), bitmaps([[0, 0]], [[0, 1]]))
    assert votes.classes == [None, 2]
    assert votes.shares == [0.0, 1.0]


def test_without_masks_the_map_stays():
    empty = RunLengthMasks.from_bitmaps(np.zeros((0, 1, 2), dtype=bool))
    assert vote(np.array([[1, 2]]), empty).class_map.tolist() == [[1, 2]]


def test_masks_of_another_size_are_an_error():
    with pytest.raises(ValueError, match=r"\(1, 2\).*\(1, 3\)"):
        vote(np.array([[1, 2]]), bitmaps([[1, 1, 1]]))
