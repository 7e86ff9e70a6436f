"""Key maps of SAM: segment-anything's files, and transformers' folders, to semsam's parameters."""

from __future__ import annotations

import re

from torch import Tensor

from .convert import merge_copies, rename

#: segment-anything -> transformers, whose names our modules keep. First match wins.
_SEGMENT_ANYTHING = [
    (r"image_encoder\.pos_embed", "vision_encoder.pos_embed"),
    (r"image_encoder\.patch_embed\.proj\.(.+)", r"vision_encoder.patch_embed.projection.\1"),
    (r"image_encoder\.blocks\.(\d+)\.norm(\d)\.(.+)", r"vision_encoder.layers.\1.layer_norm\2.\3"),
    (r"image_encoder\.blocks\.(.+)", r"vision_encoder.layers.\1"),
    (r"image_encoder\.neck\.0\.(.+)", r"vision_encoder.neck.conv1.\1"),
    (r"image_encoder\.neck\.1\.(.+)", r"vision_encoder.neck.layer_norm1.\1"),
    (r"image_encoder\.neck\.2\.(.+)", r"vision_encoder.neck.conv2.\1"),
    (r"image_encoder\.neck\.3\.(.+)", r"vision_encoder.neck.layer_norm2.\1"),
    (
        r"prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix",
        "prompt_encoder.shared_embedding.positional_embedding",
    ),
    (r"prompt_encoder\.point_embeddings\.(.+)", r"prompt_encoder.point_embed.\1"),
    (r"prompt_encoder\.mask_downscaling\.0\.(.+)", r"prompt_encoder.mask_embed.conv1.\1"),
    (r"prompt_encoder\.mask_downscaling\.1\.(.+)", r"prompt_encoder.mask_embed.layer_norm1.\1"),
    (r"prompt_encoder\.mask_downscaling\.3\.(.+)", r"prompt_encoder.mask_embed.conv2.\1"),
    (r"prompt_encoder\.mask_downscaling\.4\.(.+)", r"prompt_encoder.mask_embed.layer_norm2.\1"),
    (r"prompt_encoder\.mask_downscaling\.6\.(.+)", r"prompt_encoder.mask_embed.conv3.\1"),
    (r"(prompt_encoder\.no(?:_mask|t_a_point)_embed\..+)", r"\1"),
    (
        r"mask_decoder\.transformer\.norm_final_attn\.(.+)",
        r"mask_decoder.transformer.layer_norm_final_attn.\1",
    ),
    (
        r"mask_decoder\.transformer\.layers\.(\d+)\.norm(\d)\.(.+)",
        r"mask_decoder.transformer.layers.\1.layer_norm\2.\3",
    ),
    (r"(mask_decoder\.transformer\..+)", r"\1"),
    (r"(mask_decoder\.(?:iou_token|mask_tokens)\..+)", r"\1"),
    (r"mask_decoder\.output_upscaling\.0\.(.+)", r"mask_decoder.upscale_conv1.\1"),
    (r"mask_decoder\.output_upscaling\.1\.(.+)", r"mask_decoder.upscale_layer_norm.\1"),
    (r"mask_decoder\.output_upscaling\.3\.(.+)", r"mask_decoder.upscale_conv2.\1"),
]

#: An MLP of segment-anything numbers its layers; transformers calls the first and last otherwise.
_MLP = re.compile(
    r"(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.layers\.(\d+)\.(.+)"
)

#: transformers -> ours.
TRANSFORMERS_SAM = [
    (r"vision_encoder\.(.+)", r"backbone.net.\1"),
    (
        r"shared_image_embedding\.positional_embedding",
        "decoder.prompt_encoder.shared_embedding.positional_embedding",
    ),
    (r"(prompt_encoder|mask_decoder)\.(.+)", r"decoder.\1.\2"),
]


def is_segment_anything(state_dict: dict[str, Tensor]) -> bool:
    """Whether the keys are those of facebookresearch/segment-anything."""
    return any(key.startswith("image_encoder.") for key in state_dict)


def is_transformers_sam(state_dict: dict[str, Tensor]) -> bool:
    """Whether the keys are those of transformers' ``SamModel``."""
    return any(key.startswith("vision_encoder.") for key in state_dict)


def convert_segment_anything(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of a ``sam_vit_{b,l,h}`` file.

    Raises:
        ValueError: for unknown keys, all listed.
    """
    last: dict[str, int] = {}
    for key in state_dict:
        if match := _MLP.fullmatch(key):
            last[match[1]] = max(last.get(match[1], 0), int(match[2]))

    def transformers_key(key: str) -> str | None:
        if match := _MLP.fullmatch(key):
            layer = int(match[2])
            inner = "proj_in" if layer == 0 else f"layers.{layer - 1}"
            return f"{match[1]}.{'proj_out' if layer == last[match[1]] else inner}.{match[3]}"
        return rename(key, _SEGMENT_ANYTHING)

    renamed = merge_copies(state_dict, transformers_key, "a segment-anything checkpoint")
    return convert_transformers_sam(renamed)


def convert_transformers_sam(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of transformers' ``SamModel``; the frequencies may stand there twice.

    Raises:
        ValueError: for unknown keys, all listed, or copies that differ.
    """
    return merge_copies(
        state_dict, lambda key: rename(key, TRANSFORMERS_SAM), "a checkpoint of transformers' SAM"
    )
