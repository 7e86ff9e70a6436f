from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional as F

from semsam.modeling.criterion import OpenVocabularyCriterion
from semsam.modeling.criterion.text_losses import contrastive_terms
from semsam.structures import Instances, PromptOutput, PromptTargets, TextPrediction
from tests.tiny import tiny_sam_cfg

SIDE, K, D = 8, 3, 5


def unit(*shape, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=draw), dim=-1)


def regions(number, seed=0, fields=("gt_masks", "gt_text_embeddings")):
    """One image with a prompt an instance, and what is known of its instances."""
    draw = torch.Generator().manual_seed(seed)
    known = {
        "gt_masks": torch.rand(number, SIDE, SIDE, generator=draw) > 0.5,
        "gt_text_embeddings": unit(number, D, seed=seed + 1),
        "gt_part_embeddings": unit(number, D, seed=seed + 2),
    }
    instances = Instances((SIDE, SIDE), **{name: known[name] for name in fields})
    order = torch.arange(number)
    return instances, PromptTargets(order, order[:, None])


def answer(images, prompts, seed=5, parts=False):
    """Random predictions whose leaves take gradients."""
    draw = torch.Generator().manual_seed(seed)

    def leaf(*shape):
        return torch.randn(images, prompts, K, *shape, generator=draw).requires_grad_()

    leaves = [leaf(SIDE, SIDE), leaf(), leaf(D), leaf(D), leaf()]
    masks, scores, embeddings, of_parts, cosines = leaves
    text = TextPrediction(
        F.normalize(embeddings, dim=-1),
        F.normalize(of_parts, dim=-1) if parts else None,
        cosines,
        torch.tensor(2.0, requires_grad=True),
    )
    return PromptOutput(
        mask_logits=masks,
        scores=scores,
        boxes=None,
        tokens=torch.zeros(images, prompts, K, 1),
        valid=torch.ones(images, prompts, dtype=torch.bool),
        padded_size=(SIDE, SIDE),
        text=text,
    ), leaves


def losses_of(output, *scenes, **settings):
    instances, targets = zip(*scenes, strict=True)
    return OpenVocabularyCriterion(**settings)(output, list(instances), list(targets))


SHAPE = {"loss_mask_focal", "loss_mask_dice", "loss_iou"}
NAME = {"loss_contrastive", "loss_cosine"}


def test_an_image_trains_what_it_knows():
    """Two images with masks and two with names give what each two give by themselves."""
    output, leaves = answer(4, 2)
    masked = [regions(2, seed, ("gt_masks",)) for seed in (0, 10)]
    named = [regions(2, seed, ("gt_text_embeddings",)) for seed in (20, 30)]
    together = losses_of(output, *masked, *named)
    part = {
        name: losses_of(replace(output, **_images(output, images)), *scenes)
        for name, images, scenes in (("masked", slice(2), masked), ("named", slice(2, 4), named))
    }
    for name in SHAPE:
        torch.testing.assert_close(together[name], part["masked"][name])
        assert part["named"][name] == 0
    for name in NAME:
        torch.testing.assert_close(together[name], part["named"][name])
        assert part["masked"][name] == 0
    sum(together.values()).backward()
    assert not leaves[0].grad[2:].any()
    assert not leaves[2].grad[:2].any()


def _images(output, images):
    text = output.text
    return {
        "mask_logits": output.mask_logits[images],
        "scores": output.scores[images],
        "valid": output.valid[images],
        "text": replace(text, embeddings=text.embeddings[images], cosines=text.cosines[images]),
    }


def test_a_batch_that_knows_nothing_has_zero_losses_that_are_connected():
    output, leaves = answer(1, 2)
    losses = losses_of(output, regions(2, fields=()))
    assert set(losses) == SHAPE | NAME
    sum(losses.values()).backward()
    assert all(leaf.grad is not None and not leaf.grad.any() for leaf in (leaves[0], leaves[2]))


def test_a_region_whose_vector_is_zero_has_no_name():
    output, leaves = answer(1, 3)
    scene = regions(3)
    scene[0].gt_text_embeddings[1] = 0
    losses = losses_of(output, scene)
    sum(losses[name] for name in NAME).backward()
    assert leaves[2].grad[0, [0, 2]].any()
    assert not leaves[2].grad[0, 1].any()


def test_one_mask_of_a_prompt_learns_its_shape_and_maybe_another_its_name():
    for choice, same in (("uncoupled", False), ("coupled", True)):
        output, leaves = answer(1, 6)
        sum(losses_of(output, regions(6), choice=choice).values()).backward()
        shaped = leaves[0].grad[0].flatten(2).any(-1)
        named = leaves[4].grad[0] != 0
        assert (shaped.sum(1) == 1).all()
        assert (named.sum(1) == 1).all()
        assert torch.equal(shaped, named) == same


def test_masks_that_do_not_answer_a_prompt_do_not_learn_from_it():
    output, leaves = answer(1, 2)
    answering = torch.tensor([[[True, False, False], [False, True, True]]])
    output = replace(output, answering=answering, levels=(1, 2))
    sum(losses_of(output, regions(2)).values()).backward()
    touched = leaves[0].grad[0].flatten(2).any(-1) | leaves[2].grad[0].any(-1)
    assert touched[0].tolist() == [True, False, False]
    assert not touched[1, 0]
    output, leaves = answer(1, 2)
    output = replace(output, answering=answering, levels=(1, 2))
    sum(losses_of(output, regions(2), all_levels=True).values()).backward()
    assert not leaves[0].grad[0, :, 0].any()


def test_names_of_parts_have_a_space_of_their_own():
    output, leaves = answer(1, 3, parts=True)
    fields = ("gt_text_embeddings", "gt_part_embeddings")
    losses = losses_of(output, regions(3, fields=fields))
    losses["loss_contrastive_part"].backward()
    assert leaves[3].grad.any()
    assert leaves[2].grad is None or not leaves[2].grad.any()


def test_the_scale_learns_from_the_contrast():
    output, _ = answer(1, 3)
    losses_of(output, regions(3))["loss_contrastive"].backward()
    assert output.text.logit_scale.grad != 0


def test_regions_of_one_name_are_positives_of_each_other():
    embeddings = unit(3, 1, D)
    names = unit(2, D, seed=1)[[0, 0, 1]]
    scale = torch.tensor(3.0)
    from_names, from_masks = contrastive_terms(embeddings, names, scale)
    logits = scale * names @ embeddings[:, 0].T
    found, called = logits.log_softmax(1), logits.log_softmax(0)
    expected = [-(found[0, 0] + found[0, 1]) / 2, -(found[1, 0] + found[1, 1]) / 2, -found[2, 2]]
    torch.testing.assert_close(from_names, torch.stack(expected))
    expected = [-(called[0, k] + called[1, k]) / 2 for k in (0, 1)] + [-called[2, 2]]
    torch.testing.assert_close(from_masks[:, 0], torch.stack(expected))
    apart, _ = contrastive_terms(embeddings, names, scale, shared_names=False)
    torch.testing.assert_close(apart, -found.diagonal())


def test_perfect_embeddings_of_distant_names_cost_nothing():
    names = torch.eye(3)
    from_names, from_masks = contrastive_terms(names[:, None], names, torch.tensor(100.0))
    assert max(from_names.abs().max(), from_masks.abs().max()) < 1e-5


def test_names_of_another_text_encoder_are_refused():
    output, _ = answer(1, 2)
    instances, targets = regions(2)
    instances.gt_text_embeddings = torch.randn(2, D + 1)
    with pytest.raises(ValueError, match=r"6 channels.*5: they come from another text encoder"):
        losses_of(output, (instances, targets))


def test_an_unknown_choice_and_a_model_without_the_head_are_refused():
    with pytest.raises(ValueError, match="'both'"):
        OpenVocabularyCriterion(choice="both")
    with pytest.raises(ValueError, match=r"add it to MODEL.REGION_HEADS.NAMES"):
        OpenVocabularyCriterion(tiny_sam_cfg())


#: Regions of each of two ranks.
SHARES = (3, 1)


def _losses_of_rank(rank, folder, shares):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    output, leaves = answer(1, sum(SHARES))
    instances, targets = regions(sum(SHARES))
    first = sum(shares[:rank])
    own = PromptTargets(targets.seeds.clone(), targets.levels)
    own.seeds[:first] = own.seeds[first + shares[rank] :] = -1
    losses = losses_of(output, (instances, own))
    sum(losses.values()).backward()
    result = {"losses": {k: v.item() for k, v in losses.items()}}
    result["grads"] = [leaf.grad for leaf in leaves if leaf.grad is not None]
    result["scale"] = output.text.logit_scale.grad
    torch.save(result, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("shares", [SHARES, (4, 0)])
def test_two_ranks_learn_what_one_process_learns_from_all_regions(tmp_path, shares):
    mp.start_processes(_losses_of_rank, args=(str(tmp_path), shares), nprocs=2, start_method="fork")
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    output, leaves = answer(1, sum(SHARES))
    losses = losses_of(output, regions(sum(SHARES)))
    sum(losses.values()).backward()
    for name, loss in losses.items():
        mean = (ranks[0]["losses"][name] + ranks[1]["losses"][name]) / 2
        assert mean == pytest.approx(loss.item(), rel=1e-5)
    grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
    for whole, *parts in zip(grads, *(r["grads"] for r in ranks), strict=True):
        torch.testing.assert_close(sum(parts) / 2, whole, rtol=1e-4, atol=1e-6)
    scale = output.text.logit_scale.grad
    torch.testing.assert_close((ranks[0]["scale"] + ranks[1]["scale"]) / 2, scale)
