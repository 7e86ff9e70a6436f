import pytest
import torch
from torch.nn import functional as F

from semsam.layers.point_sample import point_sample, sample_masks


def test_pixel_centres_read_their_pixels():
    maps = torch.arange(12.0).reshape(1, 1, 3, 4)
    y, x = torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij")
    centres = torch.stack([(x + 0.5) / 4, (y + 0.5) / 3], dim=-1).reshape(1, 12, 2)
    torch.testing.assert_close(point_sample(maps, centres), maps.flatten(2))


def test_between_two_pixels_lies_their_mean():
    maps = torch.tensor([[[[2.0, 6.0]]]])
    middle = torch.tensor([[[0.5, 0.5]]])
    assert point_sample(maps, middle).item() == 4.0


def test_outside_the_extent_reads_zero():
    maps = torch.ones(1, 2, 4, 4)
    outside = torch.tensor([[[-0.2, 0.5], [0.5, 1.3]]])
    assert point_sample(maps, outside).abs().max() == 0


def test_half_precision_maps_are_sampled_at_full_precision_points():
    maps = torch.randn(1, 1, 64, 64).bfloat16()
    points = torch.rand(1, 50, 2)
    expected = point_sample(maps.float(), points)
    torch.testing.assert_close(point_sample(maps, points), expected, rtol=0, atol=0)


def test_an_empty_batch_gives_no_samples_and_keeps_the_gradient():
    maps = torch.zeros(0, 3, 4, 4, requires_grad=True)
    samples = point_sample(maps, torch.zeros(0, 5, 2))
    assert samples.shape == (0, 3, 5)
    samples.sum().backward()
    assert maps.grad.shape == maps.shape


def test_points_for_another_number_of_maps_are_rejected():
    with pytest.raises(ValueError, match="2 maps, but points for 3"):
        point_sample(torch.zeros(2, 1, 4, 4), torch.zeros(3, 5, 2))
    with pytest.raises(ValueError, match="2 mask indices, but points for 3"):
        sample_masks(
            torch.zeros(2, 4, 4, dtype=torch.bool), torch.arange(2), torch.zeros(3, 5, 2), (4, 4)
        )


@pytest.mark.parametrize("frame", [(9, 14), (16, 32)])
def test_masks_read_as_floats_padded_to_the_frame(frame):
    masks = torch.rand(3, 9, 14) > 0.5
    index = torch.tensor([2, 0, 0, 1])
    points = torch.rand(4, 200, 2) * 1.2 - 0.1
    padded = F.pad(masks.float(), (0, frame[1] - 14, 0, frame[0] - 9))
    expected = point_sample(padded[index][:, None], points)[:, 0]
    samples = sample_masks(masks, index, points, frame)
    torch.testing.assert_close(samples, expected, rtol=0, atol=1e-5)
