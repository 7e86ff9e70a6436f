import random

import numpy as np
import torch

from semsam.utils.env import collect_env, rng_state, seed_everything, set_rng_state


def draw():
    return random.random(), float(np.random.rand()), torch.rand(1).item()  # noqa: NPY002


def test_same_seed_same_draws():
    assert seed_everything(3) == 3
    first = draw()
    seed_everything(3)
    assert draw() == first


def test_a_negative_seed_is_replaced_by_a_fresh_one():
    seeds = {seed_everything(-1) for _ in range(3)}
    assert len(seeds) == 3
    assert min(seeds) >= 0


def test_draws_go_on_from_a_state_that_went_through_a_file(tmp_path):
    seed_everything(0)
    draw()
    torch.save(rng_state(), tmp_path / "state.pth")
    expected = draw(), draw()
    seed_everything(99)
    set_rng_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert (draw(), draw()) == expected


def test_environment_names_torch_and_its_version():
    assert f"torch {torch.__version__.split('+')[0]}" in collect_env()
