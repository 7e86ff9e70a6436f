"""Key map of the released SCA folders (segment-caption-anything-*) to semsam's parameters."""

from __future__ import annotations

import re

from torch import Tensor

from .convert import merge_copies, rename
from .convert_sam import TRANSFORMERS_SAM

_HEAD = "region_heads.CaptionHead."

_SCA = [
    (r"mask_decoder\.additional_transformer\.(.+)", rf"{_HEAD}region_tokens.mixer.\1"),
    (r"mask_decoder\.caption_tokens\.(.+)", rf"{_HEAD}region_tokens.queries.\1"),
    (r"language_project\.(.+)", rf"{_HEAD}projection.\1"),
    (r"task_tokens\.(.+)", rf"{_HEAD}task_tokens.\1"),
    (r"language_model\.(.+)", rf"{_HEAD}language_model.\1"),
    (r"timm_vision_encoder\.(.+)", r"backbone.net.\1"),
    (r"neck\.(.+)", r"backbone.neck.\1"),
    *TRANSFORMERS_SAM,
]

#: Tables that older versions of transformers stored with a language model, and a timm network's
#: classifier.
_UNUSED = re.compile(
    r"language_model\..*\.(rotary_emb\.(inv_freq|cos_cached|sin_cached)|attn\.(masked_)?bias)"
    r"|timm_vision_encoder\.head\..+"
)


def is_sca(state_dict: dict[str, Tensor]) -> bool:
    """Whether the keys are those of an SCA model."""
    return any(key.startswith("language_project.") for key in state_dict)


def sca_key(key: str) -> str | None:
    """Our name of a key, or None if the key is known and unused.

    Raises:
        KeyError: if the key is unknown.
    """
    return None if _UNUSED.fullmatch(key) else rename(key, _SCA)


def convert_sca(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of an SCA model: SAM, mixer, projection and language model.

    Raises:
        ValueError: for unknown keys, all listed, or copies that differ.
    """
    return merge_copies(state_dict, sca_key, "an SCA checkpoint")
