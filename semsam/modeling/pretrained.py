"""Models of transformers, from a folder or the hub, ready to be asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
#: What says which processor or tokenizer a folder holds, if not its config.json.
_PROCESSOR_FILES = ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
#: What a model's folder holds, for messages.
FILES = "config.json, model.safetensors, the processor's json and the tokenizer's files"


def compute_dtype(device: torch.device) -> torch.dtype:
    """What frozen models are computed in: float16 on a GPU, float32 on a CPU."""
    return torch.float16 if device.type == "cuda" else torch.float32


def read_dtype(name: str, key: str) -> torch.dtype | None:
    """The type of a configuration's value; None where it is empty and leaves the choice.

    Args:
        name: ``float32``, ``bfloat16``, ``float16`` or "".
        key: the configuration key that has it, for messages.

    Raises:
        ValueError: if it is no type that models are computed in.
    """
    known = {"": None, **{str(t).removeprefix("torch."): t for t in _DTYPES}}
    if name not in known:
        raise ValueError(f"{key} is one of {', '.join(filter(None, known))}, not '{name}'")
    return known[name]


def vision_batch_size(batch_size: int, device: torch.device) -> int:
    """Patches that a large vision tower takes at once: a CPU's cache holds those of a few."""
    return batch_size if device.type == "cuda" else min(batch_size, 2)


def load_model(
    loader: Any, name: str, key: str, device: torch.device, dtype: torch.dtype | None = None
) -> Any:
    """A model in evaluation mode on the device, without gradients.

    Args:
        loader: transformers' class.
        name: a folder that transformers saved, or a name on the hub.
        key: the configuration key that names it, for messages.
        device: where it goes.
        dtype: of the weights; ``compute_dtype`` if None.

    Raises:
        RuntimeError: if it cannot be found, is damaged or of another class.
    """
    model: nn.Module
    try:
        _check_folder(name, ("config.json",))
        model, report = loader.from_pretrained(
            name, dtype=dtype or compute_dtype(device), output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _unusable(name, key, error) from error
    if missing := sorted(report["missing_keys"]):
        reason = f"its weights lack {len(missing)} parameters, {missing[0]} among them"
        raise _unusable(name, key, ValueError(f"{reason}: is it a {loader.__name__}?"))
    return model.requires_grad_(False).eval().to(device)


def load_processor(loader: Any, name: str, key: str, **kwargs: Any) -> Any:
    """A processor or tokenizer.

    Args:
        loader: transformers' class.
        name: as for ``load_model``.
        key: as for ``load_model``.
        **kwargs: for ``from_pretrained``.

    Raises:
        RuntimeError: if it cannot be found or read.
    """
    try:
        _check_folder(name, ("config.json", *_PROCESSOR_FILES))
        return loader.from_pretrained(name, **kwargs)
    except (OSError, ValueError, TypeError) as error:
        raise _unusable(name, key, error) from error


def _check_folder(name: str, wanted: Sequence[str]) -> None:
    """The folder has one of the wanted files."""
    # A name on the hub is NAME or OWNER/NAME; transformers would look for any path there.
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if Path(name).is_dir():
        if not any(Path(name, file).is_file() for file in wanted):
            raise FileNotFoundError(f"the folder has no {wanted[0]}")
    elif is_path:
        raise FileNotFoundError("there is no such folder")


def _unusable(name: str, key: str, error: Exception) -> RuntimeError:
    reason = str(error).strip()
    if not Path(name).is_dir():
        reason += (
            f"\nWithout the hub: copy the files of '{name}' ({FILES}) into a folder and name the "
            f"folder in {key}."
        )
    return RuntimeError(f"{key}: cannot load '{name}': {reason}")
