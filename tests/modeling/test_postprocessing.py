import pytest
import torch
from torch.nn import functional as F

from semsam.modeling.postprocessing import upsample_masks, upsample_masks_binary


def test_a_mask_is_resized_to_the_padded_frame_cut_and_resized_to_the_photo():
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    out = upsample_masks(logits, (32, 32), (20, 28), (45, 60))
    padded = F.interpolate(logits, (32, 32), mode="bilinear", align_corners=False)
    expected = F.interpolate(padded[..., :20, :28], (45, 60), mode="bilinear", align_corners=False)
    assert out.shape == (2, 3, 45, 60)
    torch.testing.assert_close(out, expected)


def test_without_an_output_size_the_mask_has_the_size_of_the_image():
    logits = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert upsample_masks(logits, (16, 16), (13, 16)).shape == (1, 13, 16)


def test_binary_masks_equal_thresholded_logits_whatever_the_chunk(monkeypatch):
    logits = torch.randn(5, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = upsample_masks(logits, (32, 32), (30, 31), (60, 62)) > 0.3
    monkeypatch.setattr("semsam.modeling.postprocessing._CHUNK_FLOATS", 3 * 60 * 62)
    masks = upsample_masks_binary(logits, (32, 32), (30, 31), (60, 62), threshold=0.3)
    assert torch.equal(masks, expected)


def test_no_mask_gives_no_mask_of_the_right_size():
    assert upsample_masks(torch.zeros(0, 6, 8, 8), (32, 32), (20, 20)).shape == (0, 6, 20, 20)
    assert upsample_masks_binary(torch.zeros(0, 6, 8, 8), (32, 32), (20, 20)).shape == (
        0,
        6,
        20,
        20,
    )


def test_an_image_larger_than_its_padded_frame_is_rejected():
    with pytest.raises(ValueError, match="does not fit"):
        upsample_masks(torch.zeros(1, 8, 8), (32, 32), (33, 20))
