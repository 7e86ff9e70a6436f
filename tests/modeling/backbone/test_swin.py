import pytest
import torch

from semsam.modeling.backbone.swin import SwinTransformer, shifted_region_mask
from tests.tiny import perturb


def tiny_swin(**kwargs):
    torch.manual_seed(0)
    return SwinTransformer(embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=4, **kwargs)


@pytest.mark.parametrize("size", [(64, 96), (61, 83), (8, 8)])
def test_maps_have_the_strides_that_output_shape_states(size):
    swin = tiny_swin()
    maps = swin(torch.rand(1, 3, *size))
    for name, spec in swin.output_shape().items():
        rows, columns = (-(-side // spec.stride) for side in size)
        assert maps[name].shape == (1, spec.channels, rows, columns)


def test_activation_checkpointing_changes_no_gradient():
    image = torch.rand(1, 3, 32, 32)
    gradients = []
    for checkpointing in (False, True):
        swin = perturb(tiny_swin(activation_checkpointing=checkpointing)).train()
        sum(m.sum() for m in swin(image).values()).backward()
        gradients.append([p.grad for p in swin.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_drop_path_drops_in_training_only():
    swin = perturb(tiny_swin(drop_path_rate=0.9))
    image = torch.rand(1, 3, 32, 32)
    swin.eval()
    torch.testing.assert_close(swin(image)["res3"], swin(image)["res3"])
    swin.train()
    assert any(not torch.equal(swin(image)["res3"], swin(image)["res3"]) for _ in range(5))


def test_a_shifted_window_separates_the_two_ends_of_the_map():
    mask = shifted_region_mask(8, 8, window_size=4, device=torch.device("cpu"))
    assert mask.shape == (4, 16, 16)
    assert not mask[0].any(), "the first window lies inside the map"
    corner = mask[3].view(4, 4, 4, 4)
    assert corner[0, 0, 1, 1] == 0
    assert corner[0, 0, 3, 3] == -100


def test_depths_and_heads_must_agree():
    with pytest.raises(ValueError, match="differ in length"):
        SwinTransformer(depths=(2, 2), num_heads=(1,))
