"""The network against the original: backbone, pixel decoder, decoder layers, clicks, boxes."""

import json
from pathlib import Path

import pytest
import torch

from semsam.checkpoint.convert import semantic_sam_key
from semsam.config import load_cfg
from semsam.layers.ms_deform_attn import MSDeformAttn, ms_deform_attn
from semsam.modeling.build import META_ARCH
from semsam.modeling.postprocessing import upsample_masks
from semsam.structures import Prompts, box_cxcywh_to_xyxy

from .golden import GOLDEN, SEMANTIC_SAM, cases, load_original, semsam_cfg

CONFIGS = Path(__file__).parents[2] / "configs" / "semantic_sam"


def assert_close(ours, theirs, atol=1e-4):
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


def prompts_of(fixture):
    """Clicks where the fixture's type is 1, else boxes, from (N, 4) of the unpadded image."""
    height, width = fixture["in.image"].shape[-2:]
    anchors = fixture["in.points"] * torch.tensor([width, height, width, height])
    clicks = fixture["in.pb"] == 1
    parts = []
    for anchor, click in zip(anchors, clicks, strict=True):
        if click:
            parts.append(Prompts.from_points(anchor[None, :2], extents=anchor[None, 2:]))
        else:
            parts.append(Prompts.from_boxes(box_cxcywh_to_xyxy(anchor[None])))
    return Prompts.cat(parts)


@torch.no_grad()
@pytest.mark.parametrize(
    ("fixture", "what"),
    cases(SEMANTIC_SAM, "inference", "backbone", "pixel_decoder", "layers", "own_group", "masks"),
)
def test_inference_equals_the_original(fixture, what):
    # The original's demo let the prompts of a call see each other; its evaluation did not.
    cfg = semsam_cfg(fixture.meta["config"])
    cfg.MODEL.DECODER.CROSS_PROMPT_ATTENTION = what != "own_group"
    cfg.MODEL.DECODER.INFERENCE_CLICK_TYPE = 1
    model = load_original(fixture, cfg)
    images = model.preprocess([{"image": fixture["in.image"]}])
    if what == "backbone":
        assert_close(images.tensor, fixture["mid.padded_normalised_image"])
        for name, ours in model.backbone(images.tensor).items():
            assert_close(ours, fixture[f"mid.backbone.{name}"])
        return
    features = model.encode_image(images)
    prompts = prompts_of(fixture)
    if what == "pixel_decoder":
        assert_close(features["mask_features"], fixture["mid.mask_features"])
        theirs = fixture.numbered("mid.multi_scale")
        assert len(theirs) == len(features["multi_scale"])
        for ours, expected in zip(features["multi_scale"], theirs, strict=True):
            assert_close(ours, expected)
    elif what == "layers":
        # At inference only the last layer has heads: shorten the decoder to see each.
        layers, values = model.decoder.layers, features["values"]
        for i in range(len(layers)):
            model.decoder.layers = layers[: i + 1]
            shortened = {**features, "values": values[: i + 1]}
            assert_output(model.decode(shortened, prompts), fixture, f"dec.{i}")
    elif what == "own_group":
        assert_output(model.decode(features, prompts), fixture, "dec_blockmask.last")
    else:
        output = model.decode(features, prompts)
        size = images.image_sizes[0]
        masks = upsample_masks(output.mask_logits, output.padded_size, size)
        assert_close(masks[0].flatten(0, 1), fixture["out.masks"], atol=1e-3)
        assert_close(output.scores, fixture["out.ious"])
        chosen = output.select_masks(fixture.meta["levels"])
        assert_close(chosen.scores, fixture["out.ious_levels"])
        best_first = output.scores[0].argsort(dim=-1, descending=True, stable=True)
        assert torch.equal(best_first, fixture["out.order_desc_iou"].long())


def assert_output(output, fixture, prefix):
    assert_close(output.mask_logits.flatten(1, 2), fixture[f"{prefix}.pred_masks"])
    assert_close(output.scores, fixture[f"{prefix}.pred_ious"])
    assert_close(output.boxes.flatten(1, 2), fixture[f"{prefix}.pred_boxes"])


@pytest.mark.parametrize(
    ("fixture", "what"), cases(SEMANTIC_SAM, "ms_deform_attn", "sum", "gradients", "module", "init")
)
def test_deformable_attention_equals_the_original(fixture, what):
    shapes = [tuple(s) for s in fixture["in.spatial_shapes"].tolist()]
    names = ("value", "sampling_locations", "attention_weights")
    value, locations, weights = (fixture[f"in.{n}"].requires_grad_() for n in names)
    if what == "sum":
        with torch.no_grad():
            ours = ms_deform_attn(value, shapes, locations, weights)
        assert_close(ours, fixture["out.output"])
    elif what == "gradients":
        ours = ms_deform_attn(value, shapes, locations, weights)
        assert_close(ours.detach(), fixture["out.output"])
        ours.backward(fixture["in.grad_output"])
        for name, tensor in zip(names, (value, locations, weights), strict=True):
            assert_close(tensor.grad, fixture[f"out.grad_{name}"], atol=1e-3)
    else:
        meta = fixture.meta
        dim = meta["heads"] * meta["dim"]
        module = MSDeformAttn(dim, len(shapes), meta["heads"], meta["points"])
        if what == "init":
            theirs = fixture["mod.init_sampling_offsets_bias"]
            assert_close(module.sampling_offsets.bias.detach(), theirs)
            return
        prefix = "mod.state."
        state = {k.removeprefix(prefix): v for k, v in fixture.tensors.items() if prefix in k}
        module.load_state_dict(state)
        query = fixture["mod.query"]
        value = module.project_value(fixture["mod.input"])
        ours = module(query, fixture["mod.ref4"], value, shapes)
        assert_close(ours.detach(), fixture["mod.out_ref4"])
        # The run with points also had padded cells, whose values the original sets to zero.
        value = value * ~fixture["mod.padding_mask"].bool()[..., None, None]
        ours = module(query, fixture["mod.ref2"], value, shapes)
        assert_close(ours.detach(), fixture["mod.out_ref2"])


def key_lists():
    """Key and shape lists of the original's full-size models."""
    paths = sorted((GOLDEN / SEMANTIC_SAM).glob("keys_*.json"))
    return [pytest.param(p, id=f"{SEMANTIC_SAM}/{p.stem}/keys") for p in paths]


@pytest.mark.parametrize("path", key_lists())
def test_every_official_key_fills_a_parameter_or_is_known_unused(path):
    lists = json.loads(path.read_text())
    shapes = {key: tuple(shape) for key, (shape, _) in lists["keys"].items()}
    config = {
        "keys_swint": "semantic_sam_swin_t_sa1b",
        "keys_swinl": "semantic_sam_swin_l_sa1b",
        "keys_reproduce_sam_swinl": "reproduce_sam_swin_l_sa1b",
    }[path.stem]
    cfg = load_cfg(CONFIGS / f"{config}.yaml")
    with torch.device("meta"):
        model = META_ARCH.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    theirs = {semantic_sam_key(key): shape for key, shape in shapes.items()}
    theirs.pop(None)
    # The decoder reads the first of two rows.
    assert theirs["decoder.prompt_embed.weight"][0] == 2
    theirs["decoder.prompt_embed.weight"] = (1, *theirs["decoder.prompt_embed.weight"][1:])
    assert theirs == ours


@torch.no_grad()
@pytest.mark.parametrize(("parts", "fits"), [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize(("fixture", "what"), cases(SEMANTIC_SAM, "inference", "class_maps")[:1])
def test_maps_into_a_text_space_load_where_a_head_has_a_place_for_them(fixture, what, parts, fits):
    predictor = "model.sem_seg_head.predictor."
    theirs = fixture.weights[f"{predictor}class_embed"]
    cfg = semsam_cfg(fixture.meta["config"])
    cfg.MODEL.REGION_HEADS.NAMES = ["TextClassHead"]
    text = cfg.MODEL.TEXT_CLASS
    text.EMBED_DIM, text.NUM_LAYERS, text.PARTS = theirs.shape[1] + (not fits), 1, parts
    text.SEMANTIC_TOKENS = text.HYPERNETWORKS = text.PREDICT_COSINE = False
    model = load_original(fixture, cfg)
    maps = model.region_heads["TextClassHead"].projections
    assert (maps["whole"].weight.shape == theirs.T.shape) == fits
    if fits:
        assert torch.equal(maps["whole"].weight, theirs.T)
        for name, projection in maps.items():
            key = predictor + {"whole": "class_embed", "part": "class_embed_part"}[name]
            assert torch.equal(projection.weight, fixture.weights[key].T)
