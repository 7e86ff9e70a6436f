from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from semsam.config import get_cfg
from semsam.modeling.build import CRITERION
from semsam.modeling.criterion.pair_losses import PairLosses
from semsam.structures import Instances, PromptTargets

from .scenes import (
    FRAME,
    empty_scene,
    nested_scene,
    perfect_output,
    pixel_centres,
    random_output,
    same_points_for_every_row,
)

TERMS = {"loss_mask_bce", "loss_mask_dice", "loss_iou", "loss_box", "loss_giou"}
NAMES = ["ManyToManyCriterion", "ManyToOneCriterion"]
both_criteria = pytest.mark.parametrize("name", NAMES)


def build(name, rand=same_points_for_every_row, **keys):
    cfg = get_cfg()
    cfg.MODEL.CRITERION.NUM_POINTS = 40
    for key, value in keys.items():
        cfg.MODEL.CRITERION[key] = value
    return CRITERION.get(name)(cfg, rand=rand)


def slice_image(output, image):
    one = slice(image, image + 1)
    tensors = {k: getattr(output, k)[one] for k in ("mask_logits", "scores", "boxes", "tokens")}
    aux = [slice_image(layer, image) for layer in output.aux]
    return replace(output, **tensors, valid=output.valid[one], aux=aux)


def reorder(output, order):
    tensors = {
        k: getattr(output, k)[:, order]
        for k in ("mask_logits", "scores", "boxes", "tokens", "valid")
    }
    return replace(output, **tensors, aux=[reorder(layer, order) for layer in output.aux])


def assert_equal_losses(ours, expected):
    assert {k: v.item() for k, v in ours.items()} == pytest.approx(
        {k: v.item() for k, v in expected.items()}, rel=1e-5, abs=1e-7
    )


@both_criteria
def test_every_layer_has_every_loss(name):
    instances, targets = nested_scene()
    losses = build(name)(random_output(layers=3), [instances], [targets])
    assert set(losses) == {term + suffix for term in TERMS for suffix in ("", "_0", "_1")}
    assert all(loss.item() > 0 for loss in losses.values())


@both_criteria
def test_a_perfect_output_has_no_loss(name):
    instances, targets = nested_scene()
    output = perfect_output(instances, [[2, 1, 0, 3], [0, 1, 3, 2]])
    losses = build(name, rand=pixel_centres)(output, [instances], [targets])
    assert max(loss.item() for loss in losses.values()) < 1e-4


@both_criteria
def test_decoders_without_boxes_have_no_box_losses(name):
    instances, targets = nested_scene()
    output = replace(random_output(layers=1), boxes=None)
    losses = build(name)(output, [instances], [targets])
    assert set(losses) == {"loss_mask_bce", "loss_mask_dice", "loss_iou"}


@pytest.mark.parametrize(("name", "counts"), zip(NAMES, [(4, 3), (2, 1)], strict=True))
def test_a_batch_of_two_equals_two_of_one(name, counts):
    scene = nested_scene()
    # The second image is smaller than the frame and asks about one prompt only.
    instances, targets = nested_scene((26, 24))
    other = instances, PromptTargets(targets.seeds[:1], targets.levels[:1])
    output = random_output(images=2)
    criterion = build(name)
    together = criterion(output, *zip(scene, other, strict=True))
    first = criterion(slice_image(output, 0), *([x] for x in scene))
    second = criterion(slice_image(output, 1), *([x] for x in other))
    expected = {k: (counts[0] * first[k] + counts[1] * second[k]) / sum(counts) for k in together}
    assert_equal_losses(together, expected)


@both_criteria
def test_the_order_of_prompts_does_not_matter(name):
    instances, targets = nested_scene()
    output, order = random_output(), [1, 0]
    swapped = PromptTargets(targets.seeds[order], targets.levels[order])
    criterion = build(name)
    assert_equal_losses(
        criterion(reorder(output, order), [instances], [swapped]),
        criterion(output, [instances], [targets]),
    )


@both_criteria
def test_padded_prompts_add_nothing(name):
    instances, targets = nested_scene()
    output = random_output(prompts=4)
    valid = torch.tensor([[True, True, False, False]])
    padded = replace(output, valid=valid, aux=[replace(x, valid=valid) for x in output.aux])
    # The third prompt has targets and the fourth none; neither is valid.
    more = PromptTargets(targets.seeds[[0, 1, 0]], targets.levels[[0, 1, 0]])
    criterion = build(name)
    losses = criterion(padded, [instances], [more])
    assert_equal_losses(losses, criterion(reorder(output, [0, 1]), [instances], [targets]))
    sum(losses.values()).backward()
    assert output.mask_logits.grad[:, :2].abs().max() > 0
    assert output.mask_logits.grad[:, 2:].abs().max() == 0


@both_criteria
def test_a_batch_without_instances_has_zero_losses_and_gradients(name):
    instances, targets = zip(empty_scene(), empty_scene(), strict=True)
    output = random_output(images=2)
    losses = build(name)(output, list(instances), list(targets))
    assert all(loss.item() == 0 for loss in losses.values())
    sum(losses.values()).backward()
    for layer in [output, *output.aux]:
        assert layer.mask_logits.grad.abs().max() == 0
        assert layer.scores.grad.abs().max() == 0


@both_criteria
def test_an_image_without_instances_does_not_change_the_others(name):
    scene, empty = nested_scene(), empty_scene()
    output = random_output(images=2)
    criterion = build(name)
    mixed = criterion(output, *zip(empty, scene, strict=True))
    alone = criterion(slice_image(output, 1), *([x] for x in scene))
    assert_equal_losses(mixed, alone)


def masks_that_learn(output):
    return output.mask_logits.grad.flatten(3).abs().amax(-1)[0] > 0


def test_many_to_many_leaves_masks_without_a_partner_alone():
    instances, targets = nested_scene()
    output = random_output(layers=1)
    sum(build("ManyToManyCriterion")(output, [instances], [targets]).values()).backward()
    assert masks_that_learn(output).sum(-1).tolist() == [3, 1]


def test_many_to_many_supervises_all_layers_by_the_match_of_the_last():
    instances, targets = nested_scene()
    output = random_output(layers=2)
    sum(build("ManyToManyCriterion")(output, [instances], [targets]).values()).backward()
    assert masks_that_learn(output).equal(masks_that_learn(output.aux[0]))


def test_many_to_one_teaches_the_nearest_mask_of_each_layer():
    instances, targets = nested_scene()
    # Seeds are instances 1 and 3; the earlier layer draws them at other places.
    drawings = [[[3, 1, 0, 2], [0, 0, 0, 3]], [[2, 0, 1, 1], [3, 0, 0, 1]]]
    layers = [perfect_output(instances, answers) for answers in drawings]
    for layer in layers:
        layer.mask_logits.mul_(0.02).requires_grad_()
    layers[0].aux.append(layers[1])
    sum(build("ManyToOneCriterion")(layers[0], [instances], [targets]).values()).backward()
    assert masks_that_learn(layers[0]).nonzero().tolist() == [[0, 1], [1, 3]]
    assert masks_that_learn(layers[1]).nonzero().tolist() == [[0, 2], [1, 0]]


def small_drawing_of_a_large_square(size):
    """One prompt that draws the 4x4 square (instance 2) for the 16x16 one (instance 0)."""
    instances, _ = nested_scene(size)
    output = perfect_output(instances, [[2]])
    targets = PromptTargets(torch.tensor([0]), torch.tensor([[0]]))
    return replace(output, scores=torch.tensor([[[0.25]]])), [instances], [targets]


@pytest.mark.parametrize("size", [FRAME, (26, 24)])
def test_iou_target_is_the_iou_of_the_thresholded_mask(size):
    batch = small_drawing_of_a_large_square(size)
    loss = build("ManyToManyCriterion", IOU_TARGET="iou")(*batch)["loss_iou"]
    assert loss.item() == pytest.approx((0.25 - 16 / 256) ** 2)


@pytest.mark.parametrize(("target", "reaches"), [("dice", True), ("iou", False)])
def test_only_the_released_iou_target_reaches_the_mask(target, reaches):
    instances, targets = nested_scene()
    output = random_output(layers=1)
    criterion = build("ManyToManyCriterion", IOU_TARGET=target)
    criterion(output, [instances], [targets])["loss_iou"].backward()
    assert output.scores.grad.abs().max() > 0
    assert (output.mask_logits.grad is not None and bool(output.mask_logits.grad.any())) == reaches


@pytest.mark.parametrize(
    "arguments",
    [
        {"iou_target": "boundary"},
        {"num_points": 0},
        {"oversample_ratio": 0.5},
        {"importance_sample_ratio": 1.5},
    ],
)
def test_settings_that_make_no_sense_are_rejected(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        PairLosses(**arguments)


def _losses_of_rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    instances, targets = nested_scene() if rank == 0 else empty_scene()
    losses = build("ManyToManyCriterion")(random_output(), [instances], [targets])
    torch.save({k: v.item() for k, v in losses.items()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_the_mean_over_ranks_weighs_every_pair_the_same(tmp_path):
    mp.spawn(_losses_of_rank, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    instances, targets = nested_scene()
    single = build("ManyToManyCriterion")(random_output(), [instances], [targets])
    mean = {k: (ranks[0][k] + ranks[1][k]) / 2 for k in single}
    assert mean == pytest.approx({k: v.item() for k, v in single.items()}, rel=1e-5)


def test_objects_without_masks_learn_boxes_alone():
    instances, targets = nested_scene()
    boxes = Instances(instances.image_size, gt_boxes=instances.gt_boxes)
    criterion = build("ManyToManyCriterion")
    # Perfect boxes: what is matched does not hang on the masks.
    output = perfect_output(instances, [[0, 3, 1, 2], [2, 1, 3, 0]])
    expected = criterion(output, [instances], [targets])
    losses = criterion(output, [boxes], [targets])
    assert set(losses) == TERMS
    for name in TERMS:
        of_box = name in ("loss_box", "loss_giou")
        assert losses[name].item() == pytest.approx(expected[name].item() if of_box else 0)


def test_many_to_one_compares_masks():
    instances, targets = nested_scene()
    boxes = Instances(instances.image_size, gt_boxes=instances.gt_boxes)
    with pytest.raises(ValueError, match="objects of the batch have boxes alone"):
        build("ManyToOneCriterion")(random_output(), [boxes], [targets])
