import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from semsam.config import get_cfg
from semsam.modeling.build import build_text_encoder
from semsam.modeling.text.language_encoder import LanguageEncoder
from tests.annotation.models import clip_tokenizer, shake

TEXTS = ["dog", "a red car", "the wall of a roof"]
CONTEXT = 12


def tiny_encoder(causal=True):
    torch.manual_seed(0)
    encoder = LanguageEncoder(clip_tokenizer(), CONTEXT, 32, 2, 4, 16, causal)
    return shake(encoder).eval()


def clip_of(encoder):
    """CLIP's text tower of transformers with the same weights."""
    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=128,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        layer_norm_eps=1e-12,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    ours = encoder.state_dict()
    state = {
        "text_model.embeddings.token_embedding.weight": ours["lang_encoder.token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": ours[
            "lang_encoder.positional_embedding"
        ],
        "text_projection.weight": ours["lang_proj"].T,
    }
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    parts |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for end in ("weight", "bias"):
        name = f"text_model.final_layer_norm.{end}"
        state[name] = ours[f"lang_encoder.ln_final.{end}"]
        for layer in range(2):
            block, theirs = (
                f"lang_encoder.resblocks.{layer}.",
                f"text_model.encoder.layers.{layer}.",
            )
            state |= {f"{theirs}{b}.{end}": ours[f"{block}{a}.{end}"] for a, b in parts.items()}
            mixed = ours[f"{block}attn.in_proj_{end}"].chunk(3)
            state |= {
                f"{theirs}self_attn.{n}_proj.{end}": m for n, m in zip("qkv", mixed, strict=True)
            }
    model = CLIPTextModelWithProjection(config)
    model.load_state_dict(state)
    return model.eval()


@torch.no_grad()
def test_the_causal_encoder_is_the_text_tower_of_clip():
    encoder = tiny_encoder()
    tokens = clip_tokenizer()(
        TEXTS, padding=True, truncation=True, max_length=CONTEXT, return_tensors="pt"
    )
    expected = clip_of(encoder)(**tokens)
    hidden = encoder.lang_encoder(tokens["input_ids"], tokens["attention_mask"])
    real = tokens["attention_mask"].bool()
    torch.testing.assert_close(hidden[real], expected.last_hidden_state[real], atol=1e-5, rtol=0)
    theirs = torch.nn.functional.normalize(expected.text_embeds, dim=-1)
    torch.testing.assert_close(encoder(TEXTS), theirs, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
def test_a_text_is_what_it_is_beside_longer_ones(causal):
    encoder = tiny_encoder(causal)
    together = encoder(TEXTS)
    for text, expected in zip(TEXTS, together, strict=True):
        torch.testing.assert_close(encoder([text])[0], expected)
    assert together.shape == (3, encoder.dim)


@torch.no_grad()
def test_without_causality_early_tokens_see_late_ones():
    for causal in (True, False):
        encoder = tiny_encoder(causal)
        ids = clip_tokenizer()(["dog", "dot"], return_tensors="pt")["input_ids"]
        first, second = encoder.lang_encoder(ids, torch.ones_like(ids))[:, 1]
        assert torch.equal(first, second) is causal


@torch.no_grad()
def test_what_is_beyond_the_context_is_not_read():
    encoder = tiny_encoder()
    assert torch.equal(encoder(["a" * CONTEXT]), encoder(["a" * CONTEXT + "b"]))


def test_every_parameter_but_the_scale_learns_from_a_loss_on_features():
    encoder = tiny_encoder().train()
    encoder(TEXTS)[:, 0].sum().backward()
    still = {name for name, p in encoder.named_parameters() if p.grad is None}
    assert still == {"logit_scale"}


@torch.no_grad()
def test_the_name_changes_with_the_weights():
    encoder = tiny_encoder()
    before = encoder.name
    assert before == tiny_encoder().name
    encoder.lang_proj += 1.0
    assert encoder.name != before


def test_the_configuration_gives_sizes_and_tokenizer(tmp_path):
    clip_tokenizer().save_pretrained(tmp_path)
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.TEXT.NAME = "LanguageEncoder"
    with pytest.raises(ValueError, match=r"MODEL\.TEXT\.MODEL is empty"):
        build_text_encoder(cfg)
    cfg.MODEL.TEXT.MODEL = str(tmp_path)
    cfg.MODEL.TEXT.WIDTH, cfg.MODEL.TEXT.NUM_LAYERS, cfg.MODEL.TEXT.DIM_PROJ = 16, 1, 8
    encoder = build_text_encoder(cfg)
    assert encoder.lang_encoder.positional_embedding.shape == (18, 16)
    assert encoder(TEXTS).shape == (3, 8)
