"""Masks are computed where somebody looks at them, and all else is the same without them."""

import pytest
import torch

from semsam.data import build_test_loader
from semsam.modeling import build_model
from semsam.structures import Prompts
from tests.data.region_files import vg_region, write_visual_genome
from tests.tiny import (
    perturb,
    tiny_caption_cfg,
    tiny_cfg,
    tiny_sam_cfg,
    training_record,
    write_language_model,
)

CLICK = Prompts.from_points([[10.0, 12.0]])
BOX = Prompts.from_boxes([[4.0, 6.0, 40.0, 30.0]])
NOTHING = Prompts.from_points(torch.zeros(0, 2))

both_decoders = pytest.mark.parametrize(("make_cfg", "side"), [(tiny_cfg, 96), (tiny_sam_cfg, 64)])


def build(cfg):
    torch.manual_seed(0)
    return perturb(build_model(cfg)).eval()


def mask_part(model):
    """The part of the decoder that only masks need."""
    decoder = model.decoder
    return (
        decoder.mask_head if hasattr(decoder, "mask_head") else decoder.mask_decoder.upscale_conv1
    )


def calls_of(module):
    """A list that grows with each call."""
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return write_language_model(tmp_path_factory.mktemp("language_model"))


@torch.no_grad()
@both_decoders
@pytest.mark.parametrize("prompts", [Prompts.cat([CLICK, BOX]), BOX, NOTHING])
def test_a_decoder_that_leaves_masks_out_answers_all_else_alike(make_cfg, side, prompts):
    model = build(make_cfg())
    features = model.encode_image(model.preprocess([training_record(side, side)]))
    whole = model.decode(features, prompts)
    calls = calls_of(mask_part(model))
    output = model.decode(features, prompts, predict_masks=False)
    assert not calls
    assert output.mask_logits.shape == (*whole.mask_logits.shape[:3], 0, 0)
    for name in ("scores", "boxes", "tokens", "valid", "answering"):
        one, other = getattr(output, name), getattr(whole, name)
        assert one is other is None or torch.equal(one, other), name
    assert torch.equal(output.best_masks(), whole.best_masks())
    assert output.select_masks(output.level_order).num_masks == len(output.level_order)


@torch.no_grad()
@both_decoders
def test_a_record_that_wants_no_masks_gets_none_beside_one_that_does(make_cfg, side):
    model = build(make_cfg())
    calls = calls_of(mask_part(model))
    with_masks, other = training_record(side, side), training_record(side, side, seed=1)
    expected = model([with_masks, other])
    without = {**other, "predict_masks": False}
    found = model([with_masks, without])
    assert torch.equal(found[0]["instances"].pred_masks, expected[0]["instances"].pred_masks)
    calls.clear()
    alone = model([without])[0]["instances"]
    assert not calls
    for instances in (found[1]["instances"], alone):
        assert not instances.has("pred_masks")
        assert not instances.has("mask_logits")
        torch.testing.assert_close(instances.scores, expected[1]["instances"].scores)


@torch.no_grad()
@pytest.mark.parametrize("tokens", ["mixer", "masks"])
def test_captions_in_evaluation_are_those_of_a_model_that_computes_masks(tmp_path, words, tokens):
    regions = {i: [vg_region(2 * i), vg_region(2 * i + 1, x=30)] for i in (1, 2, 3)}
    name = f"visual_genome://{write_visual_genome(tmp_path, regions)}?split=test"
    cfg = tiny_caption_cfg(words, MAX_LENGTH=6, TOKENS=tokens)
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = 64
    cfg.DATALOADER.NUM_WORKERS = 0
    model = build(cfg)
    calls = calls_of(mask_part(model))
    batches = list(build_test_loader(cfg, name))
    found = [model(batch)[0]["instances"] for batch in batches]
    assert len(found) == 2
    assert not calls
    for (record,), instances in zip(batches, found, strict=True):
        whole = model([{**record, "predict_masks": True}])[0]["instances"]
        assert whole.has("pred_masks")
        assert not instances.has("pred_masks")
        assert instances.pred_captions == whole.pred_captions
        assert torch.equal(instances.caption_scores, whole.caption_scores)
        assert torch.equal(instances.scores, whole.scores)
    assert calls


def test_training_captions_alone_computes_no_masks(words):
    model = build(tiny_caption_cfg(words)).train()
    calls = calls_of(mask_part(model))
    record = training_record(48, 64)
    record["instances"].gt_captions = ["a dog", "a red cat", "a blue dog"]
    loss = model([record])["loss_caption"]
    loss.backward()
    assert not calls
    unused = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    heads = ("upscale_", "output_hypernetworks_mlps", "iou_prediction_head")
    of_masks = {
        n for n in unused if n.startswith(tuple(f"decoder.mask_decoder.{h}" for h in heads))
    }
    prompts = {n for n in unused if n.startswith("decoder.prompt_encoder.")}
    assert of_masks
    # Kinds of prompts that were not asked.
    assert unused == of_masks | prompts


def test_training_masks_computes_them():
    model = build(tiny_sam_cfg()).train()
    calls = calls_of(mask_part(model))
    model([training_record(48, 64)])
    assert calls
