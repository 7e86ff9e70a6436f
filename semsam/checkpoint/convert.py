"""Key maps from the files that others released to semsam's parameters."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

#: Original name -> ours, for keys of Semantic-SAM without the ``model.`` prefix. First match wins.
_SEMANTIC_SAM = [
    (r"backbone\.(.+)", r"backbone.\1"),
    (r"sem_seg_head\.pixel_decoder\.transformer\.level_embed", "pixel_decoder.level_embed"),
    (
        r"sem_seg_head\.pixel_decoder\.transformer\.encoder\.layers\.(.+)",
        r"pixel_decoder.layers.\1",
    ),
    (r"sem_seg_head\.pixel_decoder\.adapter_1\.norm\.(.+)", r"pixel_decoder.lateral.1.\1"),
    (r"sem_seg_head\.pixel_decoder\.adapter_1\.(.+)", r"pixel_decoder.lateral.0.\1"),
    (r"sem_seg_head\.pixel_decoder\.layer_1\.norm\.(.+)", r"pixel_decoder.output.1.\1"),
    (r"sem_seg_head\.pixel_decoder\.layer_1\.(.+)", r"pixel_decoder.output.0.\1"),
    (r"sem_seg_head\.pixel_decoder\.(input_proj|mask_features)\.(.+)", r"pixel_decoder.\1.\2"),
    (r"sem_seg_head\.predictor\.decoder\.layers\.(.+)", r"decoder.layers.\1"),
    (r"sem_seg_head\.predictor\.(?:decoder_norm|decoder\.norm)\.(.+)", r"decoder.norm.\1"),
    (r"sem_seg_head\.predictor\.decoder\.ref_point_head\.(.+)", r"decoder.anchor_encoder.\1"),
    (
        r"sem_seg_head\.predictor\.(?:_bbox_embed|(?:decoder\.)?bbox_embed\.\d+)\.(.+)",
        r"decoder.box_head.\1",
    ),
    (r"sem_seg_head\.predictor\.mask_embed\.(.+)", r"decoder.mask_head.\1"),
    (r"sem_seg_head\.predictor\.iou_prediction_head\.(.+)", r"decoder.score_head.\1"),
    (r"sem_seg_head\.predictor\.mask_tokens\.(.+)", r"decoder.token_embed.\1"),
    (r"sem_seg_head\.predictor\.pb_embedding\.(.+)", r"decoder.type_embed.\1"),
    (r"sem_seg_head\.predictor\.label_enc\.(.+)", r"decoder.prompt_embed.\1"),
]

#: Keys that hold nothing to load: tables that are computed, and projections into a text space that
#: the released training never used; see ``class_maps``.
_SEMANTIC_SAM_UNUSED = re.compile(
    r"backbone\..*\.attn\.relative_position_index"
    r"|sem_seg_head\.predictor\.(lang_mapper|class_embed|class_embed_part)"
)

#: Projections of tokens into the space of names of things and of parts -> ours.
_CLASS_MAPS = {
    "sem_seg_head.predictor.class_embed": "region_heads.TextClassHead.projections.whole.weight",
    "sem_seg_head.predictor.class_embed_part": "region_heads.TextClassHead.projections.part.weight",
}

#: Keys of Microsoft's ImageNet Swin files without a place in a detector's backbone.
_SWIN_UNUSED = re.compile(
    r"(.*\.)?(relative_position_index|attn_mask)|norm\.(weight|bias)|head\..+"
)


def is_semantic_sam(state_dict: dict[str, Tensor]) -> bool:
    """Whether the keys are those of the original Semantic-SAM code."""
    return any("sem_seg_head." in key for key in state_dict)


def semantic_sam_key(key: str) -> str | None:
    """Our name of an original Semantic-SAM key, or None if the key is known and unused.

    Prefixes ``module.`` and ``model.`` may be present or absent.

    Raises:
        KeyError: if the key is unknown.
    """
    key = strip_prefixes(key)
    return None if _SEMANTIC_SAM_UNUSED.fullmatch(key) else rename(key, _SEMANTIC_SAM)


def convert_semantic_sam(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of an original Semantic-SAM state dict.

    The original stores shared modules under several names (19 for the box head); one is kept. Of
    the two rows of ``label_enc`` the decoder reads the first.

    Args:
        state_dict: the original's keys and tensors.

    Returns:
        Our keys and tensors.

    Raises:
        ValueError: for unknown keys, all listed, or copies of a shared tensor that differ.
    """
    converted = merge_copies(state_dict, semantic_sam_key, "a Semantic-SAM checkpoint")
    if "decoder.prompt_embed.weight" in converted:
        converted["decoder.prompt_embed.weight"] = converted["decoder.prompt_embed.weight"][:1]
    return converted


def class_maps(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The maps into a text space of an original Semantic-SAM state dict, under our names."""
    stripped = {strip_prefixes(key): value for key, value in state_dict.items()}
    return {ours: stripped[key].T for key, ours in _CLASS_MAPS.items() if key in stripped}


def rename(key: str, table: list[tuple[str, str]]) -> str:
    """The new name by the first pattern of the table that matches the whole key.

    Raises:
        KeyError: if none does.
    """
    for pattern, replacement in table:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(replacement)
    raise KeyError(key)


def merge_copies(
    state_dict: dict[str, Tensor], new_key: Callable[[str], str | None], source: str
) -> dict[str, Tensor]:
    """Rename every key; tensors that get the same name must agree, and one is kept.

    Args:
        state_dict: keys and tensors.
        new_key: gives the new name, None to drop a key; raises KeyError for one it does not know.
        source: what the keys come from, for messages.

    Raises:
        ValueError: for unknown keys, all listed, or copies that differ.
    """
    converted: dict[str, Tensor] = {}
    unknown, differing = [], []
    for key, value in state_dict.items():
        try:
            name = new_key(key)
        except KeyError:
            unknown.append(key)
            continue
        if name is None:
            continue
        if name in converted and not torch.equal(converted[name], value):
            differing.append(key)
        converted.setdefault(name, value)
    if unknown:
        raise ValueError(f"{len(unknown)} unknown keys in {source}: {unknown}")
    if differing:
        raise ValueError(f"copies of a shared tensor differ in {source}: {differing}")
    return converted


def convert_swin(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keep the keys of Microsoft's ImageNet Swin files that our backbone has.

    The classifier, its norm and the computed tables are dropped; names are the same otherwise.
    """
    stripped = {strip_prefixes(key): value for key, value in state_dict.items()}
    return {k: v for k, v in stripped.items() if not _SWIN_UNUSED.fullmatch(k)}


def strip_prefixes(key: str) -> str:
    """Remove the wrappers' prefixes ``module.`` and ``model.`` from a key."""
    return re.sub(r"^(module\.|model\.)+", "", key)
