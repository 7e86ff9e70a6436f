"""Semantic-SAM's similarities and class heads against the original.

The fixtures hold the weights of the decoder's text encoder, and not those of the encoders that gave
``text.*``: of these the last step alone is compared. ``tests/modeling/text`` compares the
transformer with transformers' CLIP.
"""

import string

import pytest
import torch
from transformers import CLIPTokenizer

from semsam.checkpoint.convert import semantic_sam_key
from semsam.modeling.decoder.mask_dino import MaskDINODecoder
from semsam.modeling.region_heads.text_class import TextClassHead
from semsam.modeling.text.classifier import Classifier, class_scores, unit
from semsam.modeling.text.language_encoder import LanguageEncoder
from semsam.structures import Prompts, box_cxcywh_to_xyxy

from .golden import SEMANTIC_SAM, cases

#: Pixels of the image to one of the masks.
MASK_STRIDE = 4


def assert_close(ours, theirs):
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def state_of(fixture, prefix):
    return {k.removeprefix(prefix): v for k, v in fixture.tensors.items() if k.startswith(prefix)}


def table(features, number):
    """A classifier of the first of a fixture's texts."""
    names = tuple(f"text {i}" for i in range(number))
    return Classifier(names, features[:number, None], "original")


@torch.no_grad()
@pytest.mark.parametrize(
    ("fixture", "what"), cases(SEMANTIC_SAM, "semantic", "text.causal", "text.bidir")
)
def test_texts_are_brought_to_unit_length_as_by_the_original(fixture, what):
    assert_close(unit(fixture[f"{what}.emb_nonorm"]), fixture[f"{what}.emb"])


@torch.no_grad()
@pytest.mark.parametrize(("fixture", "what"), cases(SEMANTIC_SAM, "semantic", "causal", "bidir"))
def test_the_original_s_encoder_is_read_whole(fixture, what):
    meta = fixture.meta
    units = (string.ascii_letters + string.digits + string.punctuation)[: meta["vocab"] - 2]
    vocabulary = {unit: i for i, unit in enumerate([*units, "<|startoftext|>", "<|endoftext|>"])}
    encoder = LanguageEncoder(
        CLIPTokenizer(vocab=vocabulary, merges=[]),
        meta["ctx"],
        meta["width"],
        meta["layers"],
        meta["heads"],
        meta["dim_proj"],
        what == "causal",
    )
    encoder.load_state_dict(state_of(fixture, "lang_state."))
    ids, mask = fixture["text.ids"], fixture["text.attn_mask"]
    found = encoder.eval().project(ids, mask)
    assert found.shape == fixture["text.causal.emb"].shape
    # A text is what it is whatever padding stands behind it.
    length = int(mask[0].sum())
    assert_close(encoder.project(ids[:1, :length], mask[:1, :length]), found[:1])


@torch.no_grad()
@pytest.mark.parametrize(("fixture", "what"), cases(SEMANTIC_SAM, "semantic", "similarity"))
def test_similarities_are_the_original_s(fixture, what):
    texts, tokens = fixture["text.causal.emb"], unit(fixture["sim.v"])
    plain = {
        name: class_scores(tokens, table(texts, fixture[f"sim.{name}"].shape[-1]))
        for name in ("whole", "part")
    }
    # The scale is not recorded: it is the one that fits, and the same for both.
    whole = fixture["sim.whole"]
    scale = (whole * plain["whole"]).sum() / plain["whole"].square().sum()
    for name, cosine in plain.items():
        assert_close(scale * cosine, fixture[f"sim.{name}"])


@torch.no_grad()
@pytest.mark.parametrize(("fixture", "what"), cases(SEMANTIC_SAM, "semantic", "whole", "part"))
def test_class_heads_are_the_original_s(fixture, what):
    output = decode(fixture)
    assert_close(output.mask_logits.flatten(1, 2), fixture["dec_out.pred_masks"])
    assert_close(output.scores, fixture["dec_out.pred_ious"])
    suffix = {"whole": "", "part": "_part"}[what]
    head = class_head(fixture, output.num_masks)
    text = head.complete(output).text
    embeddings = {"whole": text.embeddings, "part": text.parts}[what].flatten(1, 2)
    expected = fixture[f"dec_out.pred_logits{suffix}"]
    classes = table(fixture["text.causal.emb"], expected.shape[-1])
    scale = fixture["lang_state.logit_scale"].exp()
    assert_close(class_scores(embeddings, classes, scale), expected)


@torch.no_grad()
def class_head(fixture, num_masks):
    """The head of Semantic-SAM, with the original's projections."""
    weights = [fixture[f"dec_state.class_embed{suffix}"].T for suffix in ("", "_part")]
    head = TextClassHead(
        token_dim=weights[0].shape[1],
        num_masks=num_masks,
        first_token=0,
        embed_dim=len(weights[0]),
        num_layers=1,
        parts=True,
        semantic_tokens=False,
        hypernetworks=False,
        predict_cosine=False,
    )
    for name, weight in zip(("whole", "part"), weights, strict=True):
        head.projections[name].weight.copy_(weight)
    return head


def decode(fixture):
    """The decoder's answer, with its prompts in one group as in the original's demo."""
    config = fixture.meta["decoder_cfg"]
    maps = [fixture[f"dec_in.multi_scale.{i}"] for i in range(config["TOTAL_NUM_FEATURE_LEVELS"])]
    mask_features = fixture["dec_in.mask_features"]
    decoder = MaskDINODecoder(
        num_levels=len(maps),
        mask_dim=mask_features.shape[1],
        hidden_dim=config["HIDDEN_DIM"],
        num_layers=config["DEC_LAYERS"],
        dim_feedforward=config["DIM_FEEDFORWARD"],
        num_tokens=config["NUM_INTERACTIVE_TOKENS"],
        cross_prompt_attention=True,
        inference_click_type=1,
    )
    state = {
        key.removeprefix("decoder."): value
        for original, value in state_of(fixture, "dec_state.").items()
        if (key := semantic_sam_key(f"sem_seg_head.predictor.{original}"))
    }
    state["prompt_embed.weight"] = state["prompt_embed.weight"][:1]
    decoder.load_state_dict(state)
    height, width = (MASK_STRIDE * side for side in mask_features.shape[-2:])
    features = {"multi_scale": maps, "mask_features": mask_features}
    features = {**decoder.eval().prepare(features), "padded_size": (height, width)}
    prompts = []
    for anchor, kind in zip(fixture["dec_in.points"], fixture["dec_in.pb"], strict=True):
        anchor = anchor[None] * torch.tensor([width, height, width, height])
        if kind == 1:
            prompts.append(Prompts.from_points(anchor[:, :2], extents=anchor[:, 2:]))
        else:
            prompts.append(Prompts.from_boxes(box_cxcywh_to_xyxy(anchor)))
    return decoder(features, Prompts.cat(prompts))
