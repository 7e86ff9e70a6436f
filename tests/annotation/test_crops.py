import numpy as np
import pytest
import torch

from semsam.annotation.crops import cut, image_tensor, patch_boxes, photo_boxes
from semsam.annotation.records import MaskedPhoto


def photo(*boxes):
    image = np.zeros((20, 30, 3), np.uint8)
    return MaskedPhoto("yard.jpg", image, [{"bbox": box} for box in boxes])


def test_a_box_reaches_to_the_pixel_at_x_plus_width():
    assert patch_boxes([[2, 3, 4, 5]], (20, 30), 1.0).tolist() == [[2, 3, 6, 8]]


def test_a_box_grows_about_its_centre_is_cut_to_whole_pixels_and_kept_in_the_photo():
    # 11 wide, 1.1 on each side; the corners -0.1 and 12.1 are truncated, -3.3 is clipped.
    found = patch_boxes([[1, -2, 10, 12]], (20, 30), 1.2)
    assert found.tolist() == [[0, 0, 12, 11]]


def test_a_box_without_area_is_a_patch_of_one_pixel():
    assert patch_boxes([[5, 6, 0, 0]], (20, 30), 1.0).tolist() == [[5, 6, 5, 6]]


def test_a_box_outside_the_photo_gives_the_nearest_pixels():
    found = patch_boxes([[1e30, 50, 4, 4], [-50, -50, 4, 4]], (20, 30), 1.6)
    assert found.tolist() == [[29, 19, 29, 19], [0, 0, 0, 0]]


def test_no_masks_have_no_boxes():
    assert photo_boxes(photo(), 1.6).shape == (0, 4)


@pytest.mark.parametrize("box", [[1, 2, -3, 4], [1, 2, float("nan"), 4], [float("inf"), 0, 1, 1]])
def test_an_impossible_box_is_named(box):
    with pytest.raises(ValueError, match=r"yard\.jpg: bbox 1 is x, y, width >= 0"):
        photo_boxes(photo([0, 0, 1, 1], box), 1.6)


@pytest.mark.parametrize("box", [None, [1, 2, 3], "box"])
def test_an_annotation_without_a_box_is_named(box):
    with pytest.raises(ValueError, match=r"yard\.jpg: mask 0 has no bbox"):
        photo_boxes(photo(box), 1.6)


def test_patches_are_views_of_the_photo():
    image = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    tensor = image_tensor(image, torch.device("cpu"))
    (patch,) = cut(tensor, patch_boxes([[4, 5, 6, 7]], (20, 30), 1.0))
    assert patch.permute(1, 2, 0).numpy().tobytes() == image[5:13, 4:11].tobytes()
    assert patch.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()


def test_a_photo_that_may_not_be_written_is_taken():
    image = np.zeros((4, 5, 3), np.uint8)
    image.flags.writeable = False
    assert image_tensor(image, torch.device("cpu")).shape == (3, 4, 5)


def test_a_photo_with_reversed_channels_is_taken():
    image = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    tensor = image_tensor(image[..., ::-1], torch.device("cpu"))
    assert tensor[0, 3, 4] == image[3, 4, 2]
