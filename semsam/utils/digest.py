"""A digest of tensors: the same on every device and machine, another for any other value."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """sha256 (hex) over names and bytes, in the order of the names.

    Where each rank holds a part of a tensor (DTensor), every rank has to call it.
    """
    total = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        total.update(name.encode())
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        flat = whole.detach().cpu().contiguous().view(-1)
        total.update(flat.view(torch.uint8).numpy().data)
    return total.hexdigest()
