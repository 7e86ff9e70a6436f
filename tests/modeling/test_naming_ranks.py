"""Names that are learned on several ranks."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from semsam.modeling import build_model
from semsam.modeling.criterion import ManyToManyCriterion
from tests.tiny import perturb

from .test_naming import named_cfg, named_record


def same_draws(*shape, device=None):
    """Uniform draws that are the same for every row and in every call."""
    draws = torch.rand(1, *shape[1:], generator=torch.Generator().manual_seed(0))
    return draws.expand(shape).to(device)


def learn(cfg, records):
    """Losses of a training step and the gradients of every parameter that has one."""
    torch.manual_seed(0)
    model = perturb(build_model(cfg)).train()
    model.criterion = ManyToManyCriterion(cfg, rand=same_draws)
    losses = model(records)
    sum(losses.values()).backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {name: loss.item() for name, loss in losses.items()}, grads


def _learn_on_rank(rank, cfg, records, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(learn(cfg, [records[rank]]), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("vocabulary", ["pets", "more", None])
def test_two_ranks_learn_what_one_process_learns_from_both_images(tmp_path, vocabulary):
    """Where the second image shares the first one's vocabulary, has another, or none."""
    cfg = named_cfg(tmp_path)
    records = [named_record(), named_record(seed=1, vocabulary=vocabulary)]
    mp.start_processes(
        _learn_on_rank, args=(cfg, records, str(tmp_path)), nprocs=2, start_method="fork"
    )
    (losses, grads), (others, other_grads) = (torch.load(tmp_path / f"{i}.pt") for i in range(2))
    whole, whole_grads = learn(cfg, records)
    assert whole["loss_contrastive"] > 0
    for name, value in whole.items():
        assert (losses[name] + others[name]) / 2 == pytest.approx(value, rel=1e-4), name
    for name, grad in whole_grads.items():
        mean = sum(g[name] for g in (grads, other_grads) if name in g) / 2
        torch.testing.assert_close(mean, grad, rtol=1e-3, atol=1e-5 * max(1, grad.abs().max()))
