"""Lists of class names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .catalog import DatasetCatalog, MetadataCatalog
from .label_maps import label_map


def read_names(source: str) -> list[str]:
    """Class names in their order.

    Args:
        source: a .txt file with a name a line; a .json file with a list of names, a dict from id
            to name, or COCO's ``categories`` (LVIS, SegInW), which are put in the order of their
            ids; a dataset, by its name or ``scheme://PATH``; or a table of
            :func:`semsam.data.label_maps.label_map`.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if there is no such table, the dataset has no classes, or the file holds
            anything else.
    """
    if "://" in source or source in DatasetCatalog:
        metadata = MetadataCatalog.get(source)
        names = metadata.get("stuff_classes") or metadata.get("thing_classes")
        if not names:
            raise ValueError(f"dataset '{source}' has no classes")
        return list(names)
    path = Path(source)
    if path.suffix not in (".txt", ".json"):
        return list(label_map(source).values())
    if not path.is_file():
        raise FileNotFoundError(f"vocabulary '{source}' does not exist")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".txt":
            lines = (line.strip() for line in text.splitlines())
            return [line for line in lines if line]
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"vocabulary '{source}': {error}") from error
    if not isinstance(content, dict) or "categories" not in content:
        return list(label_map(source).values())
    try:
        rows = sorted((int(row["id"]), str(row["name"])) for row in content["categories"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"vocabulary '{source}': every category needs an id and a name ({error!r})"
        ) from error
    return [name for _, name in rows]


def read_vocabulary(entries: Sequence[str]) -> list[str]:
    """Names in their order, each once.

    Args:
        entries: names, or .txt and .json files as :func:`read_names` takes them.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if there is no name, or a classifier's file among the names.
    """
    names: list[str] = []
    for entry in entries:
        if entry.endswith(".safetensors"):
            raise ValueError(f"'{entry}' is a classifier's file: it stands alone, not among names")
        names += read_names(entry) if entry.endswith((".txt", ".json")) else [entry.strip()]
    found = [name for name in dict.fromkeys(names) if name]
    if not found:
        raise ValueError("the vocabulary has no name: list names, or a .txt file of them")
    return found
