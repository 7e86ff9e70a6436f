"""Tiny random open-vocabulary detectors, and a language model, in folders."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    Owlv2Processor,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    OwlViTProcessor,
    PreTrainedTokenizerFast,
    SwinConfig,
)

from .models import TOWER, clip_tokenizer, shake, text_config

#: What the tiny language model can say.
SAID = ["dog", "dogs", "tree", "car", "wheel", "red", "wall", "hat", ",", ",", ",", "\n\n", "the"]
#: Words of captions; every other word is unknown to the models.
HEARD = ["a", "man", "on", "street", "photo", "of", "Caption", "Objects", ":", "\n"]


def write_language_model(folder: Path, chat_template: str | None = None, **changes) -> str:
    """GPT-2 of one layer."""
    words = ["<end>", "<unknown>", *dict.fromkeys([*SAID, *HEARD])]
    units = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unknown>"))
    units.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split("\n", "merged_with_next")]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=units, eos_token="<end>", unk_token="<unknown>"
    )
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    settings = {"n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 64, **changes}
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(words), bos_token_id=0, eos_token_id=0, **settings)
    model = shake(GPT2LMHeadModel(config))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def bert_tokenizer() -> BertTokenizer:
    """Letters, with the special tokens at the numbers that Grounding DINO expects."""
    vocabulary = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
    vocabulary |= {".": 1012, "?": 1029}
    letters = "abcdefghijklmnopqrstuvwxyz-'"
    units = [*letters, *(f"##{letter}" for letter in letters)]
    vocabulary |= {unit: 200 + number for number, unit in enumerate(units)}
    free = iter(sorted(set(range(1030)) - set(vocabulary.values())))
    vocabulary |= {f"[unused{number}]": number for number in free}
    return BertTokenizer(vocab=vocabulary)


def write_grounding_dino(folder: Path, max_text_len: int = 64, is_mm: bool = False) -> str:
    """Grounding DINO, or MMDetection's, of one layer, on a Swin of two stages."""
    backbone = SwinConfig(
        embed_dim=16,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=4,
        image_size=64,
        out_features=["stage1", "stage2"],
    )
    text = BertConfig(vocab_size=1030, max_position_embeddings=max_text_len, **TOWER)
    config_class, model_class = {
        False: (GroundingDinoConfig, GroundingDinoForObjectDetection),
        True: (MMGroundingDinoConfig, MMGroundingDinoForObjectDetection),
    }[is_mm]
    config = config_class(
        backbone_config=backbone,
        text_config=text,
        num_queries=12,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        d_model=32,
        num_feature_levels=3,
        max_text_len=max_text_len,
        fusion_dropout=0.0,
        fusion_droppath=0.0,
        dropout=0.0,
    )
    torch.manual_seed(0)
    shake(model_class(config)).save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 96}
    images = GroundingDinoImageProcessor(size=size)
    GroundingDinoProcessor(images, bert_tokenizer()).save_pretrained(folder)
    return str(folder)


def write_owl(folder: Path, version: int = 2) -> str:
    """OWL-ViT (1) or OWLv2 (2) of two layers a tower."""
    tokenizer: CLIPTokenizer = clip_tokenizer()
    vision = {**TOWER, "image_size": 48, "patch_size": 8}
    config_class, model_class, images_class, processor_class = {
        1: (OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessor, OwlViTProcessor),
        2: (Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, Owlv2Processor),
    }[version]
    config = config_class(
        text_config=text_config(tokenizer), vision_config=vision, projection_dim=32
    )
    torch.manual_seed(0)
    model = shake(model_class(config))
    with torch.no_grad():
        # Else boxes have no area, and scores are 0 or 1.
        for layer in (model.box_head.dense2, model.class_head.logit_scale):
            layer.weight *= 0.005
    model.save_pretrained(folder)
    images = images_class(size={"height": 48, "width": 48})
    processor_class(images, tokenizer).save_pretrained(folder)
    return str(folder)
