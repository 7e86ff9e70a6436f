"""Tiny random models in folders, as users have trained ones."""

import json
import string
from pathlib import Path

import torch
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    CLIPTokenizer,
    ViTImageProcessor,
)

TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
}
#: Tokens that CLIP's text tower reads.
TEXT_LIMIT = 24
WORDS = ["a", "the", "man", "dog", "cat", "tree", "car", "wall", "red", "of", "on", "street", "sky"]
EOS = 3


def clip_tokenizer() -> CLIPTokenizer:
    """One token a letter, with CLIP's marks of a word's end."""
    letters = string.ascii_lowercase + string.digits + ".,'-"
    units = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {unit: i for i, unit in enumerate(units)}
    for mark in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[mark] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=[])


def text_config(tokenizer: CLIPTokenizer) -> dict:
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": TEXT_LIMIT}
    return {**TOWER, **ids, **size, "pad_token_id": tokenizer.eos_token_id}


def write_clip(folder: Path) -> str:
    """CLIP of two layers a tower."""
    tokenizer = clip_tokenizer()
    vision = {**TOWER, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text_config(tokenizer), vision_config=vision, projection_dim=16)
    shake(CLIPModel(config)).save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPProcessor(CLIPImageProcessor(**size), tokenizer).save_pretrained(folder)
    return str(folder)


def write_open_clip(folder: Path) -> torch.nn.Module:
    """CLIP of open_clip, of a layer a tower, for ``local-dir:FOLDER``."""
    import open_clip

    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    preprocess = {"size": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}
    written = {"model_cfg": config, "preprocess_cfg": preprocess}
    Path(folder, "open_clip_config.json").write_text(json.dumps(written))
    torch.manual_seed(0)
    model = open_clip.CLIP(**config).eval()
    torch.save(model.state_dict(), Path(folder, "open_clip_pytorch_model.bin"))
    return model


def write_clipseg(folder: Path) -> str:
    """CLIPSeg that reads two of four vision layers."""
    tokenizer = clip_tokenizer()
    vision = {**TOWER, "num_hidden_layers": 4, "image_size": 64, "patch_size": 32}
    config = CLIPSegConfig(
        text_config=text_config(tokenizer),
        vision_config=vision,
        projection_dim=16,
        reduce_dim=8,
        extract_layers=[0, 2],
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    torch.manual_seed(0)
    shake(CLIPSegForImageSegmentation(config)).save_pretrained(folder)
    CLIPSegProcessor(ViTImageProcessor(), tokenizer).save_pretrained(folder)
    return str(folder)


def write_blip(folder: Path, words: list[str] = WORDS) -> str:
    """BLIP that knows a dozen words."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *words]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)})
    text = {**TOWER, "vocab_size": len(vocabulary), "encoder_hidden_size": 32}
    text |= {"bos_token_id": 5, "sep_token_id": EOS, "eos_token_id": EOS, "pad_token_id": 0}
    text |= {"max_position_embeddings": 40, "projection_dim": 32}
    vision = {**TOWER, "image_size": 48, "patch_size": 16}
    torch.manual_seed(0)
    config = BlipConfig(text_config=text, vision_config=vision)
    shake(BlipForConditionalGeneration(config)).save_pretrained(folder)
    size = {"size": {"height": 48, "width": 48}}
    BlipProcessor(BlipImageProcessor(**size), tokenizer).save_pretrained(folder)
    return str(folder)


def shake(model: torch.nn.Module) -> torch.nn.Module:
    """Add noise, so that outputs differ between inputs."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model
