"""What a segmenter's class ids are called: its own names, or a named table."""

from __future__ import annotations

import re
from typing import Any

from semsam.data.label_maps import label_map

#: transformers' names of classes that nobody named.
_UNNAMED = re.compile(r"LABEL_\d+")


def model_label_map(config: Any, name: str, labels: str = "") -> dict[int, str]:
    """Class id -> class name of a model.

    Args:
        config: transformers' configuration, with ``id2label``.
        name: the model, for messages.
        labels: a table of :func:`semsam.data.label_maps.label_map`, or "" for the model's names.

    Raises:
        ValueError: if the model has no names of its own and no table is named, or the table's
            ids are not those of the model.
        FileNotFoundError: if the table is a file and missing.
    """
    own = {int(key): str(value).strip() for key, value in config.id2label.items()}
    if not labels:
        if all(_UNNAMED.fullmatch(value) for value in own.values()):
            raise ValueError(
                f"'{name}' does not say what its {len(own)} classes are called; name a label map"
            )
        return own
    names = label_map(labels)
    if set(names) != set(own):
        raise ValueError(
            f"'{name}' has {len(own)} classes, the label map '{labels}' {len(names)}: their ids "
            f"must be the same"
        )
    return names
