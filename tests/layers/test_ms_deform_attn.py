import pytest
import torch

from semsam.layers import ms_deform_attn as module
from semsam.layers.blocks import by_rows
from semsam.layers.ms_deform_attn import MSDeformAttn, ms_deform_attn

SHAPES = [(7, 9), (4, 5), (1, 1)]


def random_inputs(low, high, queries=13, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cells = sum(h * w for h, w in SHAPES)
    value = torch.randn(2, cells, 4, 8, generator=generator)
    locations = torch.rand(2, queries, 4, 3, 2, 2, generator=generator) * (high - low) + low
    weights = torch.rand(2, queries, 4, 3, 2, generator=generator)
    return value, locations, weights


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.3, 1.3), (-50.0, 50.0)])
def test_the_gather_equals_the_sampled_form_inside_at_and_beyond_the_border(low, high):
    value, locations, weights = random_inputs(low, high)
    locations[0, 0] = 0.0
    locations[0, 1] = 1.0
    inputs = [t.requires_grad_() for t in (value, locations, weights)]
    results = []
    for form in (module._weighted_gather, module._sum_of_grid_samples):
        output = form(value, SHAPES, locations, weights)
        gradients = torch.autograd.grad(output.square().sum(), inputs)
        results.append((output.detach(), *gradients))
    # On a cell's very border the slope to the left and to the right are both right answers.
    results[0][2][0, :2] = results[1][2][0, :2]
    for gathered, sampled in zip(*results, strict=True):
        torch.testing.assert_close(gathered, sampled, rtol=1e-4, atol=1e-4)


def test_no_queries_give_an_empty_answer():
    value, locations, weights = random_inputs(0, 1, queries=0)
    assert ms_deform_attn(value, SHAPES, locations, weights).shape == (2, 0, 32)


def test_more_queries_than_a_chunk_give_the_same(monkeypatch):
    inputs = random_inputs(0, 1, queries=50)
    with torch.no_grad():
        whole = ms_deform_attn(inputs[0], SHAPES, *inputs[1:])
        monkeypatch.setattr(module, "QUERY_CHUNK", 16)
        torch.testing.assert_close(ms_deform_attn(inputs[0], SHAPES, *inputs[1:]), whole)


def test_a_constant_map_comes_back_from_anywhere_inside():
    value, locations, weights = random_inputs(0.3, 0.7)
    weights = weights / weights.sum((-1, -2), keepdim=True)
    # The 1x1 level has its only cell centre at 0.5 and fades towards its edges.
    weights[..., 2, :] = 0
    weights = weights / weights.sum((-1, -2), keepdim=True)
    output = ms_deform_attn(torch.ones_like(value), SHAPES, locations, weights)
    torch.testing.assert_close(output, torch.ones_like(output))


def test_levels_that_do_not_fit_the_values_are_rejected():
    value, locations, weights = random_inputs(0, 1)
    with pytest.raises(ValueError, match="83 cells, value has 84"):
        ms_deform_attn(value, [(7, 9), (4, 5)], locations[:, :, :, :2], weights[:, :, :, :2])


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="5 heads"):
        MSDeformAttn(32, num_levels=1, num_heads=5, num_points=4)


def test_chunks_of_rows_give_what_all_rows_give():
    layer = torch.nn.Linear(5, 3)
    x = torch.randn(3, 1000, 5)
    with torch.no_grad():
        torch.testing.assert_close(by_rows(layer, x), layer(x))
