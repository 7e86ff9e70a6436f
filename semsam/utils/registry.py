"""Name -> class tables through which every replaceable part of semsam is found."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any


def nearest_name(name: str, known: list[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest known name, or an empty string."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean '{matches[0]}'?)" if matches else ""


class Registry:
    """A table of classes or functions, keyed by their own name.

    Args:
        name: what the table holds, as written in error messages (``BACKBONE``).
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._entries: dict[str, Callable] = {}

    def register(self, entry: Callable | None = None) -> Callable:
        """Add a class or function under its ``__name__``; works with and without parentheses.

        Raises:
            ValueError: if another entry already has the name.
        """
        if entry is None:
            return self.register
        key = entry.__name__
        known = self._entries.get(key)
        if known is not None and not _same_source(known, entry):
            raise ValueError(
                f"{self.name} already has '{key}' (from {known.__module__}); "
                f"rename the one in {entry.__module__}"
            )
        self._entries[key] = entry
        return entry

    def get(self, name: str) -> Any:
        """Return the class or function called ``name``.

        Raises:
            ValueError: if there is none; the message lists the known names.
        """
        if name not in self._entries:
            known = sorted(self._entries)
            raise ValueError(
                f"{self.name} has no '{name}'{nearest_name(name, known)}; known: "
                f"{', '.join(known) or 'none'}. Name a part from outside the package in IMPORTS."
            )
        return self._entries[name]

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))


def _same_source(a: Callable, b: Callable) -> bool:
    # A plug-in file that is imported again (a second load_cfg in one process) re-registers itself.
    return a.__module__ == b.__module__ and a.__qualname__ == b.__qualname__
