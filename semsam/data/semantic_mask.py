"""A label map as one COCO run-length code a class: ``semantic_mask`` of SSA's result files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from semsam.data.run_length import RunLengthMasks

LabelMap = NDArray[np.integer]


def encode_semantic_mask(labels: LabelMap) -> dict[str, dict[str, Any]]:
    """Run-length codes by class id, written as text and ascending, of the classes that occur.

    Args:
        labels: (H, W) class of each pixel, not negative.
    """
    height, width = labels.shape
    # Codes run down the columns.
    flat = np.ascontiguousarray(labels.T).reshape(-1)
    starts = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)
    stops = np.append(starts[1:], flat.size)
    classes = flat[starts]
    codes = {}
    for number in np.unique(classes):
        mine = classes == number
        edges = np.zeros(2 * np.count_nonzero(mine) + 2, dtype=np.int64)
        edges[1:-1:2], edges[2:-1:2], edges[-1] = starts[mine], stops[mine], flat.size
        counts = np.diff(edges if edges[-2] < flat.size else edges[:-1]).tolist()
        code = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        codes[str(number)] = {"size": [height, width], "counts": code["counts"].decode()}
    return codes


def decode_semantic_mask(codes: Mapping[str, Mapping[str, Any]]) -> NDArray[np.int32]:
    """(H, W) class of each pixel; 0 where no code has a pixel, a later code over earlier ones.

    Raises:
        ValueError: if there is no code, a key is no number, a code is damaged, or sizes differ.
    """
    if not codes:
        raise ValueError("no class has a mask")
    size = tuple(next(iter(codes.values()))["size"])
    masks = RunLengthMasks.from_coco([dict(code) for code in codes.values()], size)
    labels = np.zeros(size[::-1], dtype=np.int32)
    for index, key in enumerate(codes):
        x, y, mask = masks.window(index)
        width, height = mask.shape
        np.copyto(labels[x : x + width, y : y + height], int(key), where=mask)
    return labels.T


def read_semantic_mask(path: str | Path) -> NDArray[np.int32]:
    """The label map of a result file, as :func:`decode_semantic_mask`.

    Raises:
        ValueError: if the file is no json, or has no usable ``semantic_mask``; names the file.
        FileNotFoundError: if there is no such file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return decode_semantic_mask(content["semantic_mask"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = "has no 'semantic_mask'" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"'{path}': {reason}") from error
