"""The registries of the model's parts, what each part promises, and their builders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from semsam.config import CfgNode
from semsam.utils.registry import Registry

if TYPE_CHECKING:
    from .text.encoder import TextEncoder

META_ARCH = Registry("META_ARCH")
"""``forward(list[dict])`` -> dict of losses (training) or list of ``{"instances": Instances}``."""

BACKBONE = Registry("BACKBONE")
"""``cls(cfg)``; ``forward((B, 3, H, W))`` -> dict name -> (B, C, h, w); ``output_shape()``."""

PIXEL_DECODER = Registry("PIXEL_DECODER")
"""``cls(cfg, shapes)``; ``forward(dict)`` -> dict with what the decoder reads: ``mask_features``
and ``multi_scale``, or ``image_embedding``."""

DECODER = Registry("DECODER")
"""``cls(cfg, num_extra_tokens)``; ``prepare(dict)`` -> dict, what depends on the image alone;
``forward(dict, Prompts, predict_masks)`` -> PromptOutput; ``token_dim``; for heads that ask before
it is built ``num_masks(cfg)``, K."""

REGION_HEAD = Registry("REGION_HEAD")
"""``cls(cfg, token_dim)``; ``num_tokens``, a number or a function of cfg; ``reads_masks``, whether
it needs ``mask_logits``; ``losses(PromptOutput, list[Instances], list[PromptTargets])`` -> dict of
scalars; ``inference(PromptOutput)`` -> dict of (B, N, ...). A head whose predictions others read
has ``complete(PromptOutput)`` -> PromptOutput with them."""

CRITERION = Registry("CRITERION")
"""``cls(cfg)``; ``forward(PromptOutput, list[Instances], list[PromptTargets])`` -> dict of weighted
scalars."""

TEXT_ENCODER = Registry("TEXT_ENCODER")
"""``cls(cfg)``; called with N texts -> (N, D) float32 of unit length; ``dim``, D; ``name``, which
files that are made with it record (``semsam/modeling/text/encoder.py``)."""


def build_model(cfg: CfgNode) -> nn.Module:
    """Build the meta-architecture that ``cfg.MODEL.META_ARCHITECTURE`` names, on its device."""
    import_all_parts()
    model = META_ARCH.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    return model.to(resolve_device(cfg.MODEL.DEVICE))


def extra_tokens(cfg: CfgNode) -> dict[str, int]:
    """Tokens a prompt that each region head asks of the decoder, in the order in which they lie."""
    asked = {name: REGION_HEAD.get(name).num_tokens for name in cfg.MODEL.REGION_HEADS.NAMES}
    return {name: n(cfg) if callable(n) else n for name, n in asked.items()}


def first_token_of_head(cfg: CfgNode, name: str) -> int:
    """Where the tokens of a region head begin among all the heads' tokens."""
    asked = extra_tokens(cfg)
    return sum(list(asked.values())[: list(asked).index(name)])


def build_text_encoder(cfg: CfgNode) -> TextEncoder:
    """Build the text encoder that ``cfg.MODEL.TEXT.NAME`` names, on ``MODEL.DEVICE``.

    Raises:
        ValueError: if there is no such encoder, or no model is named.
        RuntimeError: if its model cannot be loaded.
    """
    import_all_parts()
    encoder = TEXT_ENCODER.get(cfg.MODEL.TEXT.NAME)(cfg)
    if isinstance(encoder, nn.Module):
        encoder.to(resolve_device(cfg.MODEL.DEVICE))
    return encoder


def import_all_parts() -> None:
    """Import every part that ships with semsam, so that the registries are full."""
    from . import (  # noqa: F401
        backbone,
        criterion,
        decoder,
        meta_arch,
        pixel_decoder,
        region_heads,
        text,
    )


def resolve_device(name: str) -> torch.device:
    """``"auto"`` -> the first GPU if there is one, else the CPU; other names as torch reads them.

    Raises:
        ValueError: if a CUDA device is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"MODEL.DEVICE is '{name}' but torch sees no GPU; use 'cpu' or 'auto'")
    return device
