"""Seeds, random states, and a description of the machine."""

from __future__ import annotations

import platform
import random
import secrets
import sys
from importlib import metadata
from typing import Any

import numpy as np
import torch

_PACKAGES = ("torch", "torchvision", "numpy", "timm", "transformers", "pycocotools", "Pillow")


def seed_everything(seed: int) -> int:
    """Seed python, numpy and torch (all devices).

    Args:
        seed: from 0 to 2**32 - 1; negative for a fresh one.

    Returns:
        The seed that was used.
    """
    seed = secrets.randbelow(2**31) if seed < 0 else seed
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  libraries draw from numpy's global state
    torch.manual_seed(seed)
    return seed


def rng_state() -> dict[str, Any]:
    """State of python's, numpy's and torch's generators, of plain types and tensors alone."""
    state: Any = np.random.get_state()  # noqa: NPY002
    name, keys, position, has_gauss, cached = state
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        # The device of this process alone: each rank keeps its own.
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Go on drawing from where ``rng_state`` was taken."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def collect_env() -> str:
    """Describe python, the packages that matter and the devices, one a line."""
    lines = [f"python {sys.version.split()[0]} on {platform.platform()}"]
    for package in _PACKAGES:
        try:
            lines.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{package} is not installed")
    lines.append(f"CPU threads: {torch.get_num_threads()}")
    count = torch.cuda.device_count()
    names = [torch.cuda.get_device_name(i) for i in range(count)]
    lines.append(f"GPUs: {', '.join(names) or 'none'}; CUDA {torch.version.cuda}")
    return "\n".join(lines)
