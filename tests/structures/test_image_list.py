import pytest
import torch

from semsam.structures import ImageList


def test_images_are_padded_at_the_bottom_and_the_right_and_come_back_unpadded():
    tall, wide = torch.rand(3, 40, 10), torch.rand(3, 5, 33)
    images = ImageList.from_tensors([tall, wide], size_divisibility=32, pad_value=-1)
    assert images.tensor.shape == (2, 3, 64, 64)
    assert images.padded_size == (64, 64)
    assert images.image_sizes == [(40, 10), (5, 33)]
    assert torch.equal(images[0], tall)
    assert torch.equal(images[1], wide)
    assert (images.tensor[1, :, 5:] == -1).all()
    assert (images.tensor[1, :, :, 33:] == -1).all()


def test_without_divisibility_images_are_padded_to_the_largest():
    images = ImageList.from_tensors([torch.zeros(3, 4, 9), torch.zeros(3, 7, 2)])
    assert images.padded_size == (7, 9)


def test_a_square_is_filled_whatever_the_images_sizes():
    images = ImageList.from_tensors([torch.zeros(3, 40, 10)], square_size=48)
    assert images.padded_size == (48, 48)
    with pytest.raises(ValueError, match="40x60"):
        ImageList.from_tensors([torch.zeros(3, 40, 60)], square_size=48)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        ImageList.from_tensors([])


def test_moving_changes_the_tensor_and_keeps_the_sizes():
    images = ImageList.from_tensors([torch.zeros(3, 4, 9)]).to(torch.float64)
    assert images.tensor.dtype == torch.float64
    assert images.image_sizes == [(4, 9)]
