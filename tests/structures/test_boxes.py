import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semsam.structures import Boxes, box_cxcywh_to_xyxy, box_xyxy_to_cxcywh, masks_to_boxes


def test_a_box_around_a_mask_ends_after_its_last_pixel():
    masks = torch.zeros(3, 5, 7, dtype=torch.bool)
    masks[0, 1:3, 2:6] = True
    masks[1, 4, 6] = True
    expected = torch.tensor([[2.0, 1, 6, 3], [6, 4, 7, 5], [0, 0, 0, 0]])
    assert torch.equal(masks_to_boxes(masks), expected)


def test_no_masks_have_no_boxes():
    assert masks_to_boxes(torch.zeros(0, 5, 7, dtype=torch.bool)).shape == (0, 4)


@given(st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4))
def test_centre_form_and_corner_form_are_inverse(values):
    boxes = torch.tensor(values)
    torch.testing.assert_close(
        box_xyxy_to_cxcywh(box_cxcywh_to_xyxy(boxes)), boxes, atol=1e-4, rtol=1e-5
    )


def test_the_centre_form_of_a_box_is_its_middle_and_its_size():
    box = torch.tensor([10.0, 20, 30, 60])
    assert box_xyxy_to_cxcywh(box).tolist() == [20, 40, 20, 40]


def test_boxes_are_indexed_by_number_slice_and_mask():
    boxes = Boxes(torch.arange(12.0).view(3, 4))
    assert boxes[1].tensor.tolist() == [[4, 5, 6, 7]]
    assert len(boxes[1:]) == 2
    assert boxes[torch.tensor([True, False, True])].tensor[:, 0].tolist() == [0, 8]


def test_boxes_are_joined_and_measured():
    joined = Boxes.cat([Boxes(torch.tensor([[0.0, 0, 2, 3]])), Boxes(torch.zeros(0, 4))])
    assert joined.area().tolist() == [6]
    assert len(Boxes.cat([])) == 0


@pytest.mark.parametrize("shape", [(3,), (2, 5), (1, 2, 4)])
def test_boxes_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"must be \(N, 4\)"):
        Boxes(torch.zeros(shape))
