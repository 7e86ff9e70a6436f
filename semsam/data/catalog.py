"""Where a dataset's name leads: to its records and to what else is known of it.

detectron2's two catalogs, and one addition: a name may be a url such as ``sa1b_tsv:///data/shards``,
whose scheme is a registered type of dataset. A folder is then usable without a registration.

The only file that reads ``SEMSAM_DATASETS``, the folder under which registered datasets lie.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol
from urllib.parse import parse_qsl

from semsam.utils.registry import nearest_name


class Records(Protocol):
    """What a dataset is: rows by number; a list of dicts, or a class that reads when asked."""

    def __len__(self) -> int: ...

    def __getitem__(self, item: int, /) -> dict[str, Any]: ...


def datasets_root() -> Path:
    """``$SEMSAM_DATASETS``, or ``datasets`` in the working directory."""
    return Path(os.environ.get("SEMSAM_DATASETS", "datasets"))


class Metadata(SimpleNamespace):
    """What is known of a dataset beside its records, as attributes.

    ``mapper`` names an entry of DATASET_MAPPER, ``evaluator_type`` one of EVALUATOR or several.
    Attributes that stand in the dataset's files, such as names of classes, are read when one that
    is not known yet is asked for.
    """

    def set(self, **values: Any) -> Metadata:
        """Add or replace attributes."""
        self.__dict__.update(values)
        return self

    def set_lazily(self, describe: Callable[[], dict[str, Any]]) -> Metadata:
        """Let a function, called once and when needed, give the attributes that are missing."""
        self.__dict__["_describe"] = describe
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """The attribute, or ``default`` where there is none.

        Raises:
            FileNotFoundError: if a file that has to be read for it is missing.
            ValueError: if that file is damaged.
        """
        return getattr(self, key, default)

    def as_dict(self) -> dict[str, Any]:
        """All that is known, without the name; errors as ``get``."""
        # Asking for what nobody has reads what stands in files.
        self.get("name_of_no_attribute")
        return {key: value for key, value in self.__dict__.items() if key != "name"}

    def __getattr__(self, key: str) -> Any:
        if "_describe" in self.__dict__ and not key.startswith("_"):
            described = self._describe()
            del self.__dict__["_describe"]
            for name, value in described.items():
                self.__dict__.setdefault(name, value)
            if key in self.__dict__:
                return self.__dict__[key]
        raise AttributeError(f"dataset '{self.__dict__.get('name')}' has no '{key}'")


@dataclass(frozen=True)
class _Type:
    """What is registered of a scheme; see ``register_type``."""

    load: Callable[..., Records]
    describe: Callable[..., dict[str, Any]] | None
    metadata: dict[str, Any]


class _DatasetCatalog:
    """Name -> function that returns the records of the dataset."""

    def __init__(self) -> None:
        self._functions: dict[str, Callable[[], Records]] = {}
        self._types: dict[str, _Type] = {}

    def register(self, name: str, function: Callable[[], Records]) -> None:
        """Add a dataset; ``function`` is called when its records are wanted.

        Raises:
            ValueError: if the name is taken.
        """
        if name in self._functions:
            raise ValueError(f"dataset '{name}' is already registered; pick another name")
        self._functions[name] = function

    def register_type(
        self,
        scheme: str,
        function: Callable[..., Records],
        describe: Callable[..., dict[str, Any]] | None = None,
        **metadata: Any,
    ) -> None:
        """Add a type of dataset, named by ``scheme://PATH?option=value``.

        Args:
            scheme: the word before ``://``.
            function: called with the path and the options, all text; returns the records.
            describe: called in the same way; returns the metadata that a dataset's files hold.
            **metadata: of every dataset of the type.

        Raises:
            ValueError: if the scheme is taken.
        """
        if scheme in self._types:
            raise ValueError(f"dataset type '{scheme}' is already registered; pick another name")
        self._types[scheme] = _Type(function, describe, metadata)

    def get(self, name: str) -> Records:
        """The records of a registered dataset, or of a ``scheme://PATH``.

        Raises:
            ValueError: if there is no such name, scheme or option; the message lists what there is.
            FileNotFoundError: if a file of the dataset is missing.
        """
        self.check(name)
        if "://" not in name:
            return self._functions[name]()
        kind, path, options = self._parse(name)
        return kind.load(path, **options)

    def check(self, name: str) -> None:
        """Raise ValueError, listing what there is, if there is no such name, scheme or option."""
        if "://" in name:
            self._parse(name)
        else:
            self._check(name)

    def metadata_of_type(self, name: str) -> dict[str, Any]:
        """What every dataset of the type of ``scheme://PATH`` has in common; {} for other names."""
        return dict(self._type(name.split("://", 1)[0]).metadata) if "://" in name else {}

    def describe(self, name: str) -> dict[str, Any]:
        """The metadata that the files of a ``scheme://PATH`` hold; {} for other names.

        Raises:
            ValueError: if there is no such scheme or option, or a file is damaged.
            FileNotFoundError: if a file of the dataset is missing.
        """
        if "://" not in name:
            return {}
        kind, path, options = self._parse(name)
        return kind.describe(path, **options) if kind.describe else {}

    def list(self) -> list[str]:
        """Registered names."""
        return sorted(self._functions)

    def remove(self, name: str) -> None:
        """Forget a dataset.

        Raises:
            ValueError: if there is no such name.
        """
        self._check(name)
        del self._functions[name]

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    def _check(self, name: str) -> None:
        if name not in self._functions:
            schemes = ", ".join(f"{scheme}://DIR..." for scheme in sorted(self._types))
            raise ValueError(
                f"no dataset '{name}'{nearest_name(name, self.list())}; known: "
                f"{', '.join(self.list()) or 'none'}; or {schemes}"
            )

    def _parse(self, name: str) -> tuple[_Type, str, dict[str, str]]:
        """Type, path and options of a ``scheme://PATH``."""
        scheme, location = name.split("://", 1)
        path, _, query = location.partition("?")
        kind = self._type(scheme)
        options = dict(parse_qsl(query, keep_blank_values=True))
        known = list(inspect.signature(kind.load).parameters)[1:]
        for option in options:
            if option not in known:
                raise ValueError(
                    f"dataset '{name}': '{scheme}' has no option '{option}'"
                    f"{nearest_name(option, known)}; it has: {', '.join(known) or 'none'}"
                )
        return kind, path, options

    def _type(self, scheme: str) -> _Type:
        if scheme not in self._types:
            known = sorted(self._types)
            raise ValueError(
                f"no dataset type '{scheme}'{nearest_name(scheme, known)}; "
                f"known: {', '.join(known)}"
            )
        return self._types[scheme]


class _MetadataCatalog:
    """Name -> Metadata, made when first asked for."""

    def __init__(self) -> None:
        self._entries: dict[str, Metadata] = {}

    def get(self, name: str) -> Metadata:
        """The metadata of a dataset; an empty one if nothing was set.

        Raises:
            ValueError: if the name is a url of an unknown type.
        """
        if name not in self._entries:
            values = DatasetCatalog.metadata_of_type(name)
            described = partial(DatasetCatalog.describe, name)
            self._entries[name] = Metadata(name=name, **values).set_lazily(described)
        return self._entries[name]

    def list(self) -> list[str]:
        """Names that were asked for so far."""
        return sorted(self._entries)

    def remove(self, name: str) -> None:
        """Forget what is known of a dataset."""
        self._entries.pop(name, None)


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
