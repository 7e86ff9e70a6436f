import pytest
import torch

from semsam.modeling.backbone import ShapeSpec
from semsam.modeling.pixel_decoder.fpn_neck import FpnNeck

SHAPES = {f"res{i}": ShapeSpec(channels=4 * i, stride=2**i) for i in (2, 3, 4, 5)}


def maps(size=64):
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(2, s.channels, size // s.stride, size // s.stride, generator=generator)
        for name, s in SHAPES.items()
    }


@pytest.mark.parametrize(("stride", "cells"), [(4, 16), (8, 8), (32, 2)])
def test_the_embedding_has_the_asked_stride(stride, cells):
    torch.manual_seed(0)
    embedding = FpnNeck(SHAPES, stride=stride, dim=6)(maps())["image_embedding"]
    assert embedding.shape == (2, 6, cells, cells)


def test_coarser_levels_count_and_finer_ones_do_not():
    torch.manual_seed(0)
    neck = FpnNeck(SHAPES, stride=8, dim=6)
    before = neck(maps())["image_embedding"]
    for name, counts in (("res2", False), ("res3", True), ("res5", True)):
        changed = maps()
        changed[name] = changed[name].flip(0)
        assert torch.equal(neck(changed)["image_embedding"], before) != counts


def test_a_stride_without_a_map_is_refused():
    with pytest.raises(ValueError, match=r"PATCH_SIZE is 6.*strides"):
        FpnNeck(SHAPES, stride=6)
