"""One image's objects, a field an attribute; the same semantics as detectron2's class."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor


class Instances:
    """Fields of equal length that describe the objects (or prompts) of one image.

    Args:
        image_size: (height, width) of the frame that boxes and masks refer to.
        **fields: initial fields.

    Raises:
        ValueError: if a field's length differs from the fields already there.
    """

    def __init__(self, image_size: tuple[int, int], **fields: Any) -> None:
        self._image_size = (int(image_size[0]), int(image_size[1]))
        self._fields: dict[str, Any] = {}
        for name, value in fields.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width)."""
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        if name == "_fields" or name not in self._fields:
            raise AttributeError(f"instances have no field '{name}'")
        return self._fields[name]

    def set(self, name: str, value: Any) -> None:
        """Add or replace a field."""
        if self._fields and len(value) != len(self):
            raise ValueError(f"field '{name}' has {len(value)} entries, others have {len(self)}")
        self._fields[name] = value

    def has(self, name: str) -> bool:
        """Whether the field exists."""
        return name in self._fields

    def get(self, name: str) -> Any:
        """The field's value."""
        return self._fields[name]

    def remove(self, name: str) -> None:
        """Drop a field."""
        del self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """All fields; changing the dict changes the instances."""
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        """Move every field that can move."""
        moved = Instances(self._image_size)
        for name, value in self._fields.items():
            moved.set(name, value.to(*args, **kwargs) if hasattr(value, "to") else value)
        return moved

    def __getitem__(self, item: int | slice | Tensor) -> Instances:
        """Select entries; an integer keeps the dimension (one entry)."""
        if isinstance(item, int):
            if not -len(self) <= item < len(self):
                raise IndexError(f"instance {item} of {len(self)}")
            item = slice(item, item + 1 or None)
        picked = Instances(self._image_size)
        for name, value in self._fields.items():
            picked.set(name, _pick(value, item))
        return picked

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        return 0

    def __iter__(self) -> Any:
        raise TypeError("index the instances, or iterate over one of their fields")

    @staticmethod
    def cat(parts: list[Instances]) -> Instances:
        """Concatenate the instances of one image.

        Raises:
            ValueError: if the list is empty or frames differ.
        """
        if not parts or any(p.image_size != parts[0].image_size for p in parts):
            raise ValueError("cat needs instances of one image size, at least one")
        joined = Instances(parts[0].image_size)
        for name in parts[0].get_fields():
            values = [p.get(name) for p in parts]
            joined.set(name, _join(values))
        return joined

    def __repr__(self) -> str:
        height, width = self._image_size
        names = ", ".join(self._fields)
        return f"Instances({len(self)} in {height}x{width}: {names})"


def _pick(value: Any, item: slice | Tensor) -> Any:
    if isinstance(value, list) and isinstance(item, Tensor):
        indices = item.nonzero().flatten() if item.dtype == torch.bool else item
        return [value[i] for i in indices.tolist()]
    return value[item]


def _join(values: list[Any]) -> Any:
    if isinstance(values[0], Tensor):
        return torch.cat(values)
    if isinstance(values[0], list):
        return list(itertools.chain.from_iterable(values))
    return type(values[0]).cat(values)
