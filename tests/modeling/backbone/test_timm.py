import pytest
import torch

from semsam.config import get_cfg
from semsam.modeling.backbone.timm_backbone import TimmBackbone
from semsam.modeling.build import BACKBONE, import_all_parts


# A plain convolutional pyramid with a stem at stride 2, one without, and one in NHWC with windows.
@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "swin_s3_tiny_224"])
def test_maps_have_the_shapes_that_the_backbone_promises(name):
    backbone = TimmBackbone(name=name).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(2, 3, 64, 160))
    shapes = backbone.output_shape()
    assert list(maps) == list(shapes) == ["res2", "res3", "res4", "res5"]
    assert [s.stride for s in shapes.values()] == [4, 8, 16, 32]
    for key, spec in shapes.items():
        assert maps[key].shape == (2, spec.channels, 64 // spec.stride, 160 // spec.stride)


def test_the_configuration_names_the_network():
    import_all_parts()
    cfg = get_cfg()
    cfg.MODEL.TIMM.NAME = "resnet10t"
    backbone = BACKBONE.get("TimmBackbone")(cfg)
    assert backbone.output_shape()["res5"].channels == 512
    assert backbone.padding_constraints == {"size_divisibility": 32}


def test_gradients_are_the_same_with_recomputed_activations():
    torch.manual_seed(0)
    backbone = TimmBackbone(name="convnext_atto").eval()
    recomputing = TimmBackbone(name="convnext_atto", activation_checkpointing=True).eval()
    recomputing.load_state_dict(backbone.state_dict())
    image = torch.rand(1, 3, 64, 64)
    for model in (backbone, recomputing):
        model(image)["res5"].square().mean().backward()
    expected = dict(backbone.named_parameters())
    for name, parameter in recomputing.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name].grad)


def test_a_network_without_a_pyramid_is_refused():
    with pytest.raises(ValueError, match=r"strides \[16, 16, 16\]"):
        TimmBackbone(name="vit_tiny_patch16_224")


def test_an_unknown_network_is_named_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"no 'resnet5o' \(did you mean 'resnet50'"):
        TimmBackbone(name="resnet5o")
