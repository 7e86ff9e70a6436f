"""A Semantic-SAM of a few thousand parameters, and records for it."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from semsam.config import CfgNode, get_cfg
from semsam.structures import Boxes, Instances, Prompts, PromptTargets, masks_to_boxes


def tiny_cfg(**decoder) -> CfgNode:
    """Two small decoder layers, one encoder layer, Swin with one block a stage."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.SWIN.EMBED_DIM = 8
    cfg.MODEL.SWIN.DEPTHS = [1, 1, 2, 1]
    cfg.MODEL.SWIN.NUM_HEADS = [1, 1, 2, 2]
    cfg.MODEL.SWIN.WINDOW_SIZE = 4
    cfg.MODEL.SWIN.DROP_PATH_RATE = 0.0
    for node in (cfg.MODEL.PIXEL_DECODER, cfg.MODEL.DECODER):
        node.NUM_HEADS = 4
        node.DIM_FEEDFORWARD = 64
    cfg.MODEL.PIXEL_DECODER.CONV_DIM = 32
    cfg.MODEL.PIXEL_DECODER.MASK_DIM = 32
    cfg.MODEL.PIXEL_DECODER.NUM_LAYERS = 1
    cfg.MODEL.DECODER.HIDDEN_DIM = 32
    cfg.MODEL.DECODER.NUM_LAYERS = 2
    cfg.MODEL.CRITERION.NUM_POINTS = 64
    for key, value in decoder.items():
        cfg.MODEL.DECODER[key] = value
    return cfg


def perturb(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Add noise to every parameter: layers that start at zero would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def nested_masks(height: int, width: int) -> torch.Tensor:
    """(3, height, width) bool: a rectangle in a rectangle, and one elsewhere."""
    masks = torch.zeros(3, height, width, dtype=torch.bool)
    masks[0, height // 8 : height // 2, width // 8 : width // 2] = True
    masks[1, height // 4 : height // 3, width // 4 : width // 3] = True
    masks[2, height // 2 + 4 :, width // 2 + 4 :] = True
    return masks


def training_record(height: int = 64, width: int = 96, seed: int = 0) -> dict:
    """An image of noise with three masks and two clicks, the first in two nested masks."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    masks = nested_masks(height, width)
    points = torch.tensor([[width * 0.3, height * 0.3], [width * 0.75, height * 0.75]])
    instances = Instances(
        (height, width),
        gt_masks=masks,
        gt_boxes=Boxes(masks_to_boxes(masks)),
        gt_classes=torch.zeros(3, dtype=torch.int64),
    )
    return {
        "image": image,
        "height": height,
        "width": width,
        "prompts": Prompts.from_points(points),
        "instances": instances,
        "targets": PromptTargets(torch.tensor([1, 2]), torch.tensor([[0, 1], [2, -1]])),
    }


def tiny_sam_cfg() -> CfgNode:
    """SAM of a few thousand parameters for squares of 64 pixels."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.DECODER.NAME = "SamViT", "SamDecoder"
    cfg.MODEL.PIXEL_DECODER.NAME = ""
    sam, decoder = cfg.MODEL.SAM, cfg.MODEL.DECODER
    sam.IMAGE_SIZE, sam.PATCH_SIZE = 64, 8
    sam.EMBED_DIM, sam.DEPTH, sam.NUM_HEADS, sam.WINDOW_SIZE = 16, 2, 2, 3
    sam.GLOBAL_ATTN_INDEXES = [1]
    sam.MASK_IN_CHANNELS, sam.IOU_HEAD_DIM = 8, 16
    decoder.HIDDEN_DIM, decoder.DIM_FEEDFORWARD = 32, 32
    decoder.NUM_LAYERS, decoder.NUM_HEADS, decoder.NUM_TOKENS = 2, 4, 3
    cfg.MODEL.CRITERION.NAME = "ManyToOneCriterion"
    cfg.MODEL.CRITERION.NUM_POINTS = 64
    photo = cfg.INPUT.PHOTO
    photo.MIN_SIZE = photo.MAX_SIZE = 64
    photo.INTERPOLATION = "bilinear"
    return cfg


def tiny_ovsam_cfg(**text_class) -> CfgNode:
    """The tiny SAM with a head that gives masks embeddings of 12 channels."""
    cfg = tiny_sam_cfg()
    cfg.MODEL.REGION_HEADS.NAMES = ["TextClassHead"]
    cfg.MODEL.CRITERION.NAME = "OpenVocabularyCriterion"
    cfg.MODEL.TEXT_CLASS.EMBED_DIM = 12
    cfg.MODEL.TEXT_CLASS.TEXT_PROMPTS = True
    for key, value in text_class.items():
        cfg.MODEL.TEXT_CLASS[key] = value
    return cfg


WORDS = ["<end>", "a", "red", "blue", "dog", "cat", "on", "grass", "<unknown>"]


def write_language_model(folder, seed=0, **changes) -> str:
    """A GPT-2 of a few thousand random weights and a tokenizer of WORDS, as transformers saves."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    settings = {
        "vocab_size": len(WORDS),
        "n_positions": 48,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 2,
        "bos_token_id": 0,
        "eos_token_id": 0,
        # Large weights and no dropout: it learns, and differs from prefix to prefix, at once.
        "initializer_range": 0.2,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }
    GPT2LMHeadModel(GPT2Config(**{**settings, **changes})).save_pretrained(folder)
    words = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unknown>"
    ).save_pretrained(folder)
    return str(folder)


def tiny_caption_cfg(language_model: str, **caption) -> CfgNode:
    """The tiny SAM with a caption head of one layer on a language model of a folder."""
    cfg = tiny_sam_cfg()
    cfg.MODEL.CRITERION.NAME = ""
    cfg.MODEL.REGION_HEADS.NAMES = ["CaptionHead"]
    cfg.MODEL.CAPTION.LANGUAGE_MODEL = language_model
    cfg.MODEL.CAPTION.NUM_LAYERS = 1
    for key, value in caption.items():
        cfg.MODEL.CAPTION[key] = value
    return cfg


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that is made."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result._base is None:
            self.numel = max(self.numel, result.numel())
        return result
