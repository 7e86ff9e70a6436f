"""Tiny random segmenters in folders, as users have trained ones."""

import string
from pathlib import Path

import torch
import transformers as hf

NUM_CLASSES = 5
NAMES = dict(enumerate(["road", "sky", "tree", "car", "person"]))


def write_segformer(folder: Path, names: dict[int, str] = NAMES, seed: int = 0) -> str:
    config = hf.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        id2label=names,
    )
    return _write(folder, hf.SegformerForSemanticSegmentation, config, _sized("Segformer"), seed)


def write_mask2former(folder: Path) -> str:
    config = hf.Mask2FormerConfig(
        backbone_config=_swin(),
        id2label=NAMES,
        num_queries=6,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        num_attention_heads=2,
        encoder_layers=1,
        decoder_layers=2,
    )
    model = hf.Mask2FormerForUniversalSegmentation
    return _write(folder, model, config, _sized("Mask2Former"))


def write_maskformer(folder: Path) -> str:
    decoder = hf.DetrConfig(
        d_model=32,
        num_queries=6,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
    )
    config = hf.MaskFormerConfig(
        fpn_feature_size=32,
        mask_feature_size=32,
        backbone_config=_swin(),
        decoder_config=decoder,
        id2label=NAMES,
    )
    return _write(folder, hf.MaskFormerForInstanceSegmentation, config, _sized("MaskFormer"))


def write_oneformer(folder: Path) -> str:
    config = hf.OneFormerConfig(
        backbone_config=_swin(),
        id2label=NAMES,
        num_queries=6,
        hidden_dim=32,
        mask_dim=32,
        conv_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        num_attention_heads=2,
        encoder_layers=1,
        decoder_layers=2,
        query_dec_layers=1,
        text_encoder_width=32,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=100,
    )
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    marks = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {unit: i for i, unit in enumerate([*letters, *marks])}
    image_processor = hf.OneFormerImageProcessor(
        class_info_file=None, size={"shortest_edge": 48, "longest_edge": 96}
    )
    # As the released folders: the file lies elsewhere on the hub.
    image_processor.class_info_file = "ade20k_panoptic.json"
    tokenizer = hf.CLIPTokenizer(vocab=vocabulary, merges=[])
    processor = hf.OneFormerProcessor(image_processor, tokenizer)
    return _write(folder, hf.OneFormerForUniversalSegmentation, config, processor)


def _swin():
    features = [f"stage{i}" for i in range(1, 5)]
    return hf.SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 2],
        window_size=4,
        out_features=features,
    )


def _sized(name: str):
    size = {"height": 64, "width": 64}
    return getattr(hf, f"{name}ImageProcessor")(size=size, do_resize=True)


def _write(folder: Path, model_class, config, processor, seed: int = 0) -> str:
    torch.manual_seed(seed)
    model = model_class(config)
    for parameter in model.parameters():
        # Wide enough that classes differ over a photo.
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)
