"""Strict loading: every key of the file has a place, every parameter of the model is filled."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import functional as F

from semsam.utils.file_io import PathManager

from .convert import (
    class_maps,
    convert_semantic_sam,
    convert_swin,
    is_semantic_sam,
    strip_prefixes,
)
from .convert_ovsam import convert_open_vocabulary_sam, is_open_vocabulary_sam
from .convert_sam import (
    convert_segment_anything,
    convert_transformers_sam,
    is_segment_anything,
    is_transformers_sam,
)
from .convert_sca import convert_sca, is_sca
from .frozen import LANGUAGE_MODEL, FrozenParts

logger = logging.getLogger(__name__)

#: Files with the key names of others: how they are known, and their translation.
_FAMILIES = [
    (is_semantic_sam, convert_semantic_sam),
    (is_open_vocabulary_sam, convert_open_vocabulary_sam),
    (is_segment_anything, convert_segment_anything),
    (is_sca, convert_sca),
    (is_transformers_sam, convert_transformers_sam),
]


#: Keys of a kind that an error names.
MOST_LISTED = 30


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of ``read_checkpoint``."""
    return read_checkpoint(path)[0]


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], FrozenParts | None]:
    """Read the model's tensors of a checkpoint, and which parts of the model it leaves out.

    Args:
        path: ``.safetensors``, a torch file that holds a state dict, ``{"model": ...}`` or
            ``{"model_state_dict": ...}``, or a folder that transformers saved, in one file or
            several; a local path or a url.

    Returns:
        Key -> tensor on the CPU; None where the file leaves nothing out.

    Raises:
        FileNotFoundError: if there is no such file, or a part of a folder is missing.
        ValueError: if a file is damaged, needs code to unpickle, or holds no state dict.
    """
    local = Path(PathManager.get_local_path(str(path)))
    if local.is_dir():
        parts = [_read_file(file)[0] for file in _files_of_folder(local)]
        return {key: value for part in parts for key, value in part.items()}, None
    return _read_file(local)


def _files_of_folder(folder: Path) -> list[Path]:
    """The weights in a folder as transformers writes them."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if index.is_file():
            files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            return [folder / file for file in files]
        if (folder / name).is_file():
            return [folder / name]
    raise FileNotFoundError(f"no model.safetensors or pytorch_model.bin in '{folder}'")


def _read_file(path: Path) -> tuple[dict[str, Tensor], FrozenParts | None]:
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at '{path}'")
    try:
        if path.suffix == ".safetensors":
            return load_file(path), None
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"'{path}' holds more than tensors, or is damaged; it cannot be read safely "
            f"(weights_only=True): {error}"
        ) from error
    except (RuntimeError, EOFError, OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"'{path}' is not a whole checkpoint file: {error}") from error
    frozen = None
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        if content.get("frozen"):
            frozen = FrozenParts.from_dict(content["frozen"])
        content = content["model"]
    elif isinstance(content, dict) and isinstance(content.get("model_state_dict"), dict):
        content = content["model_state_dict"]
    if not isinstance(content, dict) or not content:
        raise ValueError(f"'{path}' holds no state dict")
    strangers = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise ValueError(f"'{path}' holds no state dict: {strangers[:5]} are not tensors")
    return content, frozen


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a whole model: our own files, or officially released ones (Semantic-SAM, SAM).

    A region head of which the file knows nothing keeps its initialisation, with its tokens in the
    decoder, and so do an encoder of text prompts, object queries and what naming learns; a warning
    says so. That is how a new head starts from released weights. Parts that a file of ours leaves
    out are loaded from where it says they came from, and their digest must be the one that it
    states.

    Args:
        model: filled in place.
        path: as for ``read_state_dict``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a key is left over, a parameter is not filled, or shapes differ; listed, and
            a language model that is another is named.
    """
    state_dict, frozen = read_checkpoint(path)
    if frozen is not None:
        load_trained(model, state_dict, frozen, str(path))
        return
    maps: dict[str, Tensor] = {}
    for is_of_family, convert in _FAMILIES:
        if is_of_family(state_dict):
            if convert is convert_semantic_sam:
                maps = _fitting(model, class_maps(state_dict))
            state_dict = {**convert(state_dict), **maps}
            break
    else:
        state_dict = {strip_prefixes(key): value for key, value in state_dict.items()}
    new_parts = _parts_without_weights(model, state_dict)
    for name in new_parts:
        logger.warning("'%s' has no weights for %s; it starts afresh", path, _spoken(name))
    allowed = tuple(f"{name}." for name in new_parts)
    if maps:
        # The original keeps the scale with its text encoder.
        allowed += ("region_heads.TextClassHead.logit_scale",)
    _load_strictly(model, state_dict, str(path), allowed_missing=allowed)
    logger.info("loaded %d tensors from '%s'", len(state_dict), path)


def load_trained(
    model: nn.Module, state_dict: dict[str, Tensor], frozen: FrozenParts, source: str
) -> None:
    """Load a model of which ``state_dict`` holds what was trained, and the rest is elsewhere.

    Raises:
        FileNotFoundError: if the frozen parts' file is missing.
        ValueError: as for ``load_weights``, or if the frozen parts are not those of the training.
    """
    if frozen.weights:
        load_weights(model, frozen.weights)
    frozen.check(model, source)
    _load_strictly(model, state_dict, source, allowed_missing=frozen.prefixes)
    logger.info("loaded the %d trained tensors of '%s'", len(state_dict), source)


def load_backbone_weights(backbone: nn.Module, path: str | Path) -> None:
    """Load ImageNet weights into a Swin backbone; Microsoft's key names.

    Position bias tables of another window size are resized bicubically. The norms of the stages'
    outputs are not in such files and keep their initialisation.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as for ``load_weights``.
    """
    state_dict = convert_swin(read_state_dict(path))
    own = backbone.state_dict()
    for key, value in state_dict.items():
        if key.endswith("relative_position_bias_table") and key in own:
            state_dict[key] = _resize_bias_table(value, own[key].shape[0])
    norms = tuple(f"norm{i}." for i in range(len(backbone.output_shape())))  # type: ignore[operator]
    _load_strictly(backbone, state_dict, str(path), allowed_missing=norms)
    logger.info("loaded the backbone's %d tensors from '%s'", len(state_dict), path)


def _load_strictly(
    model: nn.Module, state_dict: dict[str, Tensor], source: str, allowed_missing: tuple[str, ...]
) -> None:
    own = model.state_dict()
    # A tied tensor has two names, and some files hold it once.
    filled = {_storage(own[k]) for k in state_dict if k in own}
    missing = [
        k
        for k, v in own.items()
        if k not in state_dict and not k.startswith(allowed_missing) and _storage(v) not in filled
    ]
    unexpected = [k for k in state_dict if k not in own]
    mismatched = [
        f"{k}: file {tuple(v.shape)}, model {tuple(own[k].shape)}"
        for k, v in state_dict.items()
        if k in own and v.shape != own[k].shape
    ]
    problems = [
        f"{len(keys)} {what}: {_listed(keys)}"
        for what, keys in (
            ("parameters that the file does not fill", missing),
            ("keys that the model does not have", unexpected),
            ("shapes that differ", mismatched),
        )
        if keys
    ]
    if problems:
        theirs = any(key.startswith(LANGUAGE_MODEL) for key in state_dict)
        wrong = (*missing, *unexpected, *mismatched)
        if theirs and any(problem.startswith(LANGUAGE_MODEL) for problem in wrong):
            problems.insert(0, "its language model is not that of MODEL.CAPTION.LANGUAGE_MODEL")
        raise ValueError(f"'{source}' does not fit the model: " + "; ".join(problems))
    placed = {key: _placed_like(value, own[key]) for key, value in state_dict.items()}
    model.load_state_dict(placed, strict=False)


def _storage(tensor: Tensor) -> int:
    part = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return part.untyped_storage()._cdata


def _placed_like(tensor: Tensor, own: Tensor) -> Tensor:
    """The part that this rank holds of a tensor, where the model has a part of it."""
    if isinstance(tensor, DTensor) or not isinstance(own, DTensor):
        return tensor
    mesh, placements = own.device_mesh, own.placements
    return distribute_tensor(tensor.to(own.device), mesh, placements, src_data_rank=None)


def _listed(keys: list[str]) -> str:
    more = len(keys) - MOST_LISTED
    return ", ".join(keys[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _fitting(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those for which the model has a place of their shape."""
    own = model.state_dict()
    return {k: v for k, v in tensors.items() if k in own and own[k].shape == v.shape}


def _parts_without_weights(model: nn.Module, state_dict: dict[str, Tensor]) -> list[str]:
    """Parts that may be new to a file: heads, their tokens, text prompts, object queries, names."""

    def holds(keys: Iterable[str], name: str) -> bool:
        return any(key.startswith(f"{name}.") for key in keys)

    heads = [f"region_heads.{name}" for name in getattr(model, "region_heads", {})]
    heads = [name for name in heads if not holds(state_dict, name)]
    parts = ["decoder.text_encoder", "decoder.query_embed", "decoder.query_anchors", "naming"]
    parts += ["decoder.extra_tokens"] if heads else []
    own = model.state_dict()
    return heads + [name for name in parts if holds(own, name) and not holds(state_dict, name)]


def _spoken(part: str) -> str:
    kind, _, name = part.partition(".")
    return f"the head '{name}'" if kind == "region_heads" else f"'{part}'"


def _resize_bias_table(table: Tensor, length: int) -> Tensor:
    """((2w-1)^2, heads) -> (length, heads)."""
    if table.shape[0] == length:
        return table
    side, new_side = int(table.shape[0] ** 0.5), int(length**0.5)
    grid = table.T.reshape(1, -1, side, side)
    resized = F.interpolate(grid, (new_side, new_side), mode="bicubic", align_corners=False)
    return resized.flatten(2)[0].T
