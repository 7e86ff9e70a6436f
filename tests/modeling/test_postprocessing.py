import numpy as np
import pytest
import torch
from torch.nn import functional as F

from semsam.modeling.postprocessing import upsample_map, upsample_masks, upsample_masks_binary


def random_logits(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_a_mask_is_resized_to_the_padded_frame_cut_and_resized_to_the_photo():
    logits = random_logits(2, 3, 8, 8)
    out = upsample_masks(logits, (32, 32), (20, 28), (45, 60))
    padded = F.interpolate(logits, (32, 32), mode="bilinear", align_corners=False)
    expected = F.interpolate(padded[..., :20, :28], (45, 60), mode="bilinear", align_corners=False)
    assert out.shape == (2, 3, 45, 60)
    torch.testing.assert_close(out, expected)


def test_without_an_output_size_the_mask_has_the_size_of_the_image():
    assert upsample_masks(random_logits(1, 4, 4), (16, 16), (13, 16)).shape == (1, 13, 16)


@pytest.mark.parametrize("output_size", [(30, 31), (75, 62), (15, 16), (11, 30)])
def test_one_map_in_numpy_has_the_values_of_the_batch_in_torch(output_size):
    logits = random_logits(16, 8)
    one = upsample_map(logits.numpy(), (64, 32), (30, 31), output_size)
    batch = upsample_masks(logits, (64, 32), (30, 31), output_size).numpy()
    np.testing.assert_allclose(one, batch, atol=1e-5)


def test_binary_masks_equal_thresholded_logits():
    logits = random_logits(5, 2, 8, 8)
    expected = upsample_masks(logits, (32, 32), (30, 31), (60, 62))
    masks = upsample_masks_binary(logits, (32, 32), (30, 31), (60, 62), threshold=0.3)
    assert masks.dtype == torch.bool
    clear = (expected - 0.3).abs() > 1e-4
    assert torch.equal(masks[clear], (expected > 0.3)[clear])


def test_no_mask_gives_no_mask_of_the_right_size():
    assert upsample_masks(torch.zeros(0, 6, 8, 8), (32, 32), (20, 20)).shape == (0, 6, 20, 20)
    assert upsample_masks_binary(torch.zeros(0, 6, 8, 8), (32, 32), (20, 20)).shape == (
        0,
        6,
        20,
        20,
    )


@pytest.mark.parametrize("resize", [upsample_masks, upsample_masks_binary])
def test_an_image_larger_than_its_padded_frame_is_rejected(resize):
    with pytest.raises(ValueError, match="does not fit"):
        resize(torch.zeros(1, 8, 8), (32, 32), (33, 20))
