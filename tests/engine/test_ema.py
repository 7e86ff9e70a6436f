import pytest
import torch
from torch import nn

from semsam.engine.ema import ModelEMA


def model_of(value):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def test_average_moves_by_one_minus_decay():
    model = model_of(1.0)
    ema = ModelEMA(model, decay=0.9)
    nn.init.constant_(model.weight, 2.0)
    ema.update()
    assert ema.state_dict()["weight"].item() == pytest.approx(1.1)
    assert model.weight.item() == 2.0


def test_averaged_weights_are_the_models_within_the_block_alone():
    model = model_of(1.0)
    ema = ModelEMA(model, decay=0.9)
    nn.init.constant_(model.weight, 3.0)
    with ema.applied() as averaged:
        assert averaged is model
        assert averaged.weight.item() == 1.0
    assert model.weight.item() == 3.0
    assert ema.state_dict()["weight"].item() == 1.0


def test_an_optimizer_goes_on_with_the_models_own_weights_after_the_block():
    model = model_of(1.0)
    ema = ModelEMA(model, decay=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    nn.init.constant_(model.weight, 3.0)
    with ema.applied():
        pass
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    assert model.weight.item() == 2.0
    assert ema.state_dict()["weight"].item() == 1.0


def test_state_of_another_model_is_rejected_by_name():
    ema = ModelEMA(model_of(1.0), decay=0.5)
    with pytest.raises(ValueError, match="bias"):
        ema.load_state_dict({"weight": torch.ones(1, 1), "bias": torch.ones(1)})


def test_state_goes_on():
    ema, other = ModelEMA(model_of(1.0), 0.5), ModelEMA(model_of(4.0), 0.5)
    other.load_state_dict(ema.state_dict())
    other.update()
    assert other.state_dict()["weight"].item() == 2.5


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_outside_zero_and_one_is_rejected(decay):
    with pytest.raises(ValueError, match="decay"):
        ModelEMA(model_of(1.0), decay)
