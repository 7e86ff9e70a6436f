"""The state of a run at one moment, in CPU memory, for a thread to write while the run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def copy_to_cpu(value: Any) -> Any:
    """Copy nested dicts, lists and tuples with their tensors; tensors of one storage stay so.

    A tensor of which this rank holds a part (DTensor) becomes one whose part is on the CPU.
    Anything else is handed on as it is.
    """
    storages: dict[int, torch.UntypedStorage] = {}

    def copied(item: Any) -> Any:
        if isinstance(item, DTensor):
            return item.detach().to("cpu", copy=True)
        if isinstance(item, Tensor):
            storage = item.untyped_storage()
            key = storage._cdata
            if key not in storages:
                storages[key] = storage.clone() if storage.device.type == "cpu" else storage.cpu()
            place = (item.storage_offset(), item.size(), item.stride())
            return torch.empty(0, dtype=item.dtype).set_(storages[key], *place)
        if isinstance(item, Mapping):
            return {key: copied(one) for key, one in item.items()}
        if isinstance(item, list | tuple):
            return type(item)(copied(one) for one in item)
        return item

    return copied(value)


def tensor_bytes(value: Any) -> int:
    """Bytes of this rank's tensors in nested dicts, lists and tuples; a storage counts once."""
    sizes: dict[int, int] = {}
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, Tensor):
            part = item.to_local() if isinstance(item, DTensor) else item
            storage = part.untyped_storage()
            sizes[storage._cdata] = storage.nbytes()
        elif isinstance(item, Mapping):
            left.extend(item.values())
        elif isinstance(item, list | tuple):
            left.extend(item)
    return sum(sizes.values())
