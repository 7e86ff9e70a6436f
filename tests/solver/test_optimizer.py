import pytest
import torch
from torch import nn

from semsam.config import get_cfg
from semsam.solver import build_optimizer, clip_gradients
from semsam.solver.optimizer import parameter_settings


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.ModuleDict({"proj": nn.Linear(2, 2), "norm": nn.LayerNorm(2)})
        self.backbone["attn"] = nn.ParameterDict(
            {"relative_position_bias_table": nn.Parameter(torch.ones(3))}
        )
        self.decoder = nn.ModuleDict({"embed": nn.Embedding(2, 2), "norm": nn.GroupNorm(1, 2)})
        self.level_embed = nn.Parameter(torch.ones(2))
        self.shared = self.decoder["embed"]


def test_rate_and_decay_follow_place_and_kind():
    assert parameter_settings(get_cfg(), Small()) == {
        "backbone.proj.weight": (1e-5, 0.05),
        "backbone.proj.bias": (1e-5, 0.05),
        "backbone.norm.weight": (1e-5, 0.0),
        "backbone.norm.bias": (1e-5, 0.0),
        "backbone.attn.relative_position_bias_table": (1e-5, 0.0),
        "decoder.embed.weight": (1e-4, 0.0),
        "decoder.norm.weight": (1e-4, 0.0),
        "decoder.norm.bias": (1e-4, 0.0),
        "level_embed": (1e-4, 0.05),
    }


def test_rates_by_name_and_the_decay_of_biases_can_be_set():
    cfg = get_cfg()
    cfg.SOLVER.LR_FACTORS = [["decoder.embed.", 0.5], ["decoder.", 2.0]]
    cfg.SOLVER.WEIGHT_DECAY_BIAS = 0.0
    settings = parameter_settings(cfg, Small())
    assert settings["decoder.embed.weight"] == (5e-5, 0.0)
    assert settings["decoder.norm.weight"] == (2e-4, 0.0)
    assert settings["backbone.proj.weight"] == (1e-5, 0.05)
    assert settings["backbone.proj.bias"] == (1e-5, 0.0)


def test_a_scalar_does_not_decay():
    model = Small()
    model.logit_scale = nn.Parameter(torch.tensor(2.0))
    assert parameter_settings(get_cfg(), model)["logit_scale"] == (1e-4, 0.0)


def test_parameters_of_equal_settings_share_a_group():
    model = Small()
    optimizer = build_optimizer(get_cfg(), model)
    sizes = {(g["lr"], g["weight_decay"]): len(g["params"]) for g in optimizer.param_groups}
    assert sizes == {(1e-4, 0.05): 1, (1e-5, 0.05): 2, (1e-5, 0.0): 3, (1e-4, 0.0): 3}


def test_scalars_have_a_group_of_their_own():
    model = Small()
    model.logit_scale = nn.Parameter(torch.tensor(2.0))
    groups = [g["params"] for g in build_optimizer(get_cfg(), model).param_groups]
    (scalars,) = (params for params in groups if not params[0].dim())
    assert [id(p) for p in scalars] == [id(model.logit_scale)]


def test_frozen_parameters_are_left_out():
    model = Small()
    model.backbone.requires_grad_(False)
    optimizer = build_optimizer(get_cfg(), model)
    listed = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert listed == {id(p) for p in model.parameters() if p.requires_grad}


def test_a_model_with_nothing_to_train_is_rejected():
    with pytest.raises(ValueError, match="no trainable parameter"):
        build_optimizer(get_cfg(), Small().requires_grad_(False))


def gradients_of_norm_five():
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([-4.0])
    return parameters


def test_gradients_are_clipped_by_their_joint_norm():
    parameters = gradients_of_norm_five()
    assert clip_gradients(parameters, 0.5).item() == pytest.approx(5.0)
    assert [p.grad.item() for p in parameters[:2]] == pytest.approx([0.3, -0.4], rel=1e-5)
    assert parameters[2].grad is None


@pytest.mark.parametrize("max_norm", [0, 6.0])
def test_gradients_within_the_limit_or_without_one_stay(max_norm):
    parameters = gradients_of_norm_five()
    assert clip_gradients(parameters, max_norm).item() == pytest.approx(5.0)
    assert [p.grad.item() for p in parameters[:2]] == [3.0, -4.0]
