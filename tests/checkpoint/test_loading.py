import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from semsam.checkpoint import load_backbone_weights, load_weights, read_state_dict
from semsam.checkpoint.convert import convert_semantic_sam, semantic_sam_key
from semsam.checkpoint.convert_ovsam import convert_open_vocabulary_sam
from semsam.modeling import build_model
from semsam.modeling.backbone.swin import SwinTransformer
from tests.tiny import perturb, tiny_cfg, tiny_ovsam_cfg, tiny_sam_cfg


@pytest.fixture
def model():
    return perturb(build_model(tiny_cfg()))


def same(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


@pytest.mark.parametrize("wrapper", ["bare", "model", "module.", "safetensors"])
def test_our_own_files_load_with_and_without_wrappers(model, tmp_path, wrapper):
    state, path = model.state_dict(), tmp_path / "weights.pth"
    if wrapper == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(state, path)
    elif wrapper == "model":
        torch.save({"model": state, "iteration": 3}, path)
    else:
        prefix = "" if wrapper == "bare" else wrapper
        torch.save({prefix + k: v for k, v in state.items()}, path)
    other = build_model(tiny_cfg())
    load_weights(other, path)
    assert same(model, other)


def test_all_that_does_not_fit_is_listed_with_the_file(model, tmp_path):
    state = model.state_dict()
    state["decoder.stranger"] = torch.zeros(1)
    state["decoder.type_embed.weight"] = torch.zeros(3, 32)
    del state["decoder.norm.bias"]
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    with pytest.raises(ValueError, match="does not fit the model") as error:
        load_weights(model, path)
    message = str(error.value)
    assert str(path) in message
    assert "decoder.norm.bias" in message
    assert "decoder.stranger" in message
    assert "decoder.type_embed.weight: file (3, 32), model (2, 32)" in message


def test_six_tokens_do_not_load_into_three(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "six.pth")
    with pytest.raises(ValueError, match=r"token_embed.weight: file \(6, 32\), model \(3, 32\)"):
        load_weights(build_model(tiny_cfg(NUM_TOKENS=3)), tmp_path / "six.pth")


def test_a_new_head_starts_from_weights_that_do_not_know_it(model, tmp_path, caplog):
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    model.region_heads["Colour"] = nn.Linear(32, 3)
    load_weights(model, tmp_path / "weights.pth")
    assert "no weights for the head 'Colour'" in caplog.text


def test_a_head_of_which_half_is_missing_is_an_error(model, tmp_path):
    model.region_heads["Colour"] = nn.Linear(32, 3)
    state = model.state_dict()
    del state["region_heads.Colour.bias"]
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"region_heads\.Colour\.bias"):
        load_weights(model, tmp_path / "weights.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        read_state_dict(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_truncated_file_is_named(model, tmp_path, name):
    path = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=name):
        read_state_dict(path)


def test_a_file_that_runs_code_is_refused(tmp_path):
    torch.save({"model": nn.Linear(1, 1)}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="cannot be read safely"):
        read_state_dict(tmp_path / "code.pth")


def test_a_file_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        read_state_dict(tmp_path / "epoch.pth")


def original_names(model):
    """A state dict as the original would save the model, shared copies included."""
    norm = model.state_dict()["decoder.norm.weight"]
    box = model.state_dict()["decoder.box_head.layers.0.bias"]
    prefix = "model.sem_seg_head.predictor."
    return {
        f"{prefix}decoder_norm.weight": norm,
        f"{prefix}decoder.norm.weight": norm.clone(),
        f"{prefix}_bbox_embed.layers.0.bias": box,
        f"{prefix}bbox_embed.3.layers.0.bias": box.clone(),
        f"{prefix}decoder.bbox_embed.8.layers.0.bias": box.clone(),
        f"{prefix}label_enc.weight": torch.ones(2, 32),
        f"{prefix}lang_mapper": torch.ones(32, 4),
        "model.backbone.layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16),
    }


def test_shared_copies_become_one_and_unused_keys_are_dropped(model):
    ours = convert_semantic_sam(original_names(model))
    assert sorted(ours) == [
        "decoder.box_head.layers.0.bias",
        "decoder.norm.weight",
        "decoder.prompt_embed.weight",
    ]
    assert ours["decoder.prompt_embed.weight"].shape == (1, 32)


def test_shared_copies_that_differ_are_an_error(model):
    state = original_names(model)
    state["model.sem_seg_head.predictor.bbox_embed.3.layers.0.bias"] += 1
    with pytest.raises(ValueError, match=r"differ.*bbox_embed.3"):
        convert_semantic_sam(state)


def test_an_unknown_original_key_is_listed(model):
    state = original_names(model) | {"model.sem_seg_head.mystery": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"1 unknown keys.*mystery"):
        convert_semantic_sam(state)


@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
def test_prefixes_of_wrappers_do_not_matter(prefix):
    key = semantic_sam_key(prefix + "sem_seg_head.predictor.mask_tokens.weight")
    assert key == "decoder.token_embed.weight"


def imagenet_file(swin, path):
    """Microsoft's layout: a classifier, its norm, and tables that are computed."""
    state = {k: v for k, v in swin.state_dict().items() if not k.startswith("norm")}
    state |= {
        "norm.weight": torch.ones(4),
        "norm.bias": torch.ones(4),
        "head.weight": torch.ones(4, 4),
        "head.bias": torch.ones(4),
        "layers.0.blocks.1.attn_mask": torch.zeros(4, 4),
        "layers.0.blocks.1.attn.relative_position_index": torch.zeros(4, 4),
    }
    torch.save({"model": state}, path)


def test_imagenet_swin_weights_load_into_the_backbone(tmp_path):
    kwargs = {"embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2)}
    theirs = perturb(SwinTransformer(window_size=4, **kwargs))
    imagenet_file(theirs, tmp_path / "swin.pth")
    ours = SwinTransformer(window_size=4, **kwargs)
    load_backbone_weights(ours, tmp_path / "swin.pth")
    ours.norm0, ours.norm1 = theirs.norm0, theirs.norm1
    assert same(theirs, ours)


def test_position_bias_of_another_window_is_resized(tmp_path):
    kwargs = {"embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2)}
    theirs = SwinTransformer(window_size=4, **kwargs)
    key = "layers.1.blocks.0.attn.relative_position_bias_table"
    theirs.get_parameter(key).data.fill_(0.5)
    imagenet_file(theirs, tmp_path / "swin.pth")
    ours = SwinTransformer(window_size=7, **kwargs)
    load_backbone_weights(ours, tmp_path / "swin.pth")
    torch.testing.assert_close(ours.get_parameter(key), torch.full((13 * 13, 2), 0.5))


def test_a_text_head_and_its_tokens_start_from_sam_s_weights(tmp_path, caplog):
    sam = perturb(build_model(tiny_sam_cfg()))
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    model = build_model(tiny_ovsam_cfg())
    load_weights(model, tmp_path / "sam.pth")
    own = model.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in sam.state_dict().items())
    for part in ("the head 'TextClassHead'", "'decoder.text_encoder'", "'decoder.extra_tokens'"):
        assert f"no weights for {part}" in caplog.text


def umar_names(model):
    """A state dict as open-vocabulary SAM would save what it adds to SAM."""
    head = "region_heads.TextClassHead."
    beginnings = {
        "decoder.text_encoder.": "text_encoder.",
        f"{head}projections.whole.": "text_decoder.",
        f"{head}hypernetworks.": "sam.mask_decoder.output_hypernetworks_mlps_semantic.",
        f"{head}cosine_head.": "sam.mask_decoder.cosine_sim_prediction_head.",
    }
    state = model.state_dict()
    tokens = state["decoder.extra_tokens.weight"]
    theirs = {
        "temperature": state[f"{head}logit_scale"],
        "sam.mask_decoder.cosine_token.weight": tokens[:1],
        "sam.mask_decoder.semantic_tokens.weight": tokens[1:],
    }
    for ours, other in beginnings.items():
        theirs |= {k.replace(ours, other): v for k, v in state.items() if k.startswith(ours)}
    return theirs


def test_every_key_of_open_vocabulary_sam_has_its_place():
    model = perturb(build_model(tiny_ovsam_cfg()))
    theirs = umar_names(model)
    converted = convert_open_vocabulary_sam({f"module.{k}": v for k, v in theirs.items()})
    own = model.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in converted.items())
    heads = {k for k in own if k.startswith(("region_heads.", "decoder.text_encoder."))}
    assert set(converted) == heads | {"decoder.extra_tokens.weight"}


def test_an_unknown_key_of_open_vocabulary_sam_is_listed():
    with pytest.raises(ValueError, match=r"1 unknown keys.*mystery"):
        convert_open_vocabulary_sam({"sam.mask_decoder.mystery": torch.zeros(1)})
