"""Strict loading: every key of the file has a place, every parameter of the model is filled."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from semsam.utils.file_io import PathManager

from .convert import convert_semantic_sam, convert_swin, is_semantic_sam, strip_prefixes

logger = logging.getLogger(__name__)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the model's tensors of a checkpoint file.

    Args:
        path: ``.safetensors``, or a torch file that holds a state dict or ``{"model": ...}``; a
            local path or a url.

    Returns:
        Key -> tensor on the CPU.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, needs code to unpickle, or holds no state dict.
    """
    local = PathManager.get_local_path(str(path))
    if not Path(local).is_file():
        raise FileNotFoundError(f"no checkpoint at '{path}'")
    try:
        if str(local).endswith(".safetensors"):
            return load_file(local)
        content: Any = torch.load(local, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"'{path}' holds more than tensors, or is damaged; it cannot be read safely "
            f"(weights_only=True): {error}"
        ) from error
    except (RuntimeError, EOFError, OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"'{path}' is not a whole checkpoint file: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not content:
        raise ValueError(f"'{path}' holds no state dict")
    strangers = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise ValueError(f"'{path}' holds no state dict: {strangers[:5]} are not tensors")
    return content


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a whole model: our own files, or the officially released Semantic-SAM ones.

    A region head of which the file knows nothing keeps its initialisation, and a warning says so:
    that is how a new head starts from released weights.

    Args:
        model: filled in place.
        path: as for ``read_state_dict``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a key is left over, a parameter is not filled, or shapes differ; all listed.
    """
    state_dict = read_state_dict(path)
    if is_semantic_sam(state_dict):
        state_dict = convert_semantic_sam(state_dict)
    else:
        state_dict = {strip_prefixes(key): value for key, value in state_dict.items()}
    new_heads = _heads_without_weights(model, state_dict)
    for name in new_heads:
        logger.warning("'%s' has no weights for the head '%s'; it starts afresh", path, name)
    allowed = tuple(f"region_heads.{name}." for name in new_heads)
    _load_strictly(model, state_dict, str(path), allowed_missing=allowed)
    logger.info("loaded %d tensors from '%s'", len(state_dict), path)


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
    missing = [k for k in own if k not in state_dict and not k.startswith(allowed_missing)]
    unexpected = [k for k in state_dict if k not in own]
    mismatched = [
        f"{k}: file {tuple(v.shape)}, model {tuple(own[k].shape)}"
        for k, v in state_dict.items()
        if k in own and v.shape != own[k].shape
    ]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys)}"
        for what, keys in (
            ("parameters that the file does not fill", missing),
            ("keys that the model does not have", unexpected),
            ("shapes that differ", mismatched),
        )
        if keys
    ]
    if problems:
        raise ValueError(f"'{source}' does not fit the model: " + "; ".join(problems))
    model.load_state_dict(state_dict, strict=False)


def _heads_without_weights(model: nn.Module, state_dict: dict[str, Tensor]) -> list[str]:
    heads = getattr(model, "region_heads", {})
    return [n for n in heads if not any(k.startswith(f"region_heads.{n}.") for k in state_dict)]


def _resize_bias_table(table: Tensor, length: int) -> Tensor:
    """((2w-1)^2, heads) -> (length, heads)."""
    if table.shape[0] == length:
        return table
    side, new_side = int(table.shape[0] ** 0.5), int(length**0.5)
    grid = table.T.reshape(1, -1, side, side)
    resized = F.interpolate(grid, (new_side, new_side), mode="bicubic", align_corners=False)
    return resized.flatten(2)[0].T
