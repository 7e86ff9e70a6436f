"""Key map of open-vocabulary SAM (karimumar98/semantic-sam) to semsam's parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from .convert import merge_copies, rename, strip_prefixes
from .convert_sam import convert_segment_anything

_HEAD = "region_heads.TextClassHead."

#: What it has besides SAM, which lies under ``sam.``.
_TEXT = [
    (r"temperature", f"{_HEAD}logit_scale"),
    (r"text_encoder\.(.+)", r"decoder.text_encoder.\1"),
    (r"text_decoder\.(.+)", rf"{_HEAD}projections.whole.\1"),
    (
        r"sam\.mask_decoder\.output_hypernetworks_mlps_semantic\.(.+)",
        rf"{_HEAD}hypernetworks.\1",
    ),
    (r"sam\.mask_decoder\.cosine_sim_prediction_head\.(.+)", rf"{_HEAD}cosine_head.\1"),
]
#: Tables that are one of ours, in this order.
_TOKENS = ("sam.mask_decoder.cosine_token.weight", "sam.mask_decoder.semantic_tokens.weight")


def is_open_vocabulary_sam(state_dict: dict[str, Tensor]) -> bool:
    """Whether the keys are those of open-vocabulary SAM."""
    return any(strip_prefixes(key).startswith("sam.mask_decoder.") for key in state_dict)


def convert_open_vocabulary_sam(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of an open-vocabulary SAM.

    Raises:
        ValueError: for unknown keys, all listed.
    """
    state_dict = {strip_prefixes(key): value for key, value in state_dict.items()}
    tokens = [state_dict.pop(key) for key in _TOKENS if key in state_dict]
    sam, text = {}, {}
    for key, value in state_dict.items():
        try:
            rename(key, _TEXT)
            text[key] = value
        except KeyError:
            sam[key.removeprefix("sam.")] = value
    converted = {
        **convert_segment_anything(sam),
        **merge_copies(text, lambda key: rename(key, _TEXT), "an open-vocabulary SAM"),
    }
    if tokens:
        converted["decoder.extra_tokens.weight"] = torch.cat(tokens)
    return converted
