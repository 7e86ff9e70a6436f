"""What every dataset of regions with captions shares: rows are gathered by image and checked.

Datasets of this kind have millions of regions. As python objects they would take gigabytes, once
in each worker; here a record is a piece of one buffer of json until it is asked for.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from semsam.data.records import check_region

#: A row of an annotation file -> the image's id and the region, see ``semsam.data.records``.
Parse = Callable[[dict[str, Any]], tuple[Any, dict[str, Any]]]
Value = TypeVar("Value")

logger = logging.getLogger(__name__)


class RegionRecords:
    """Records by number, kept as json in one array that forked workers share.

    Args:
        records: see ``semsam.data.records``; what json can hold.
        num_bad: regions that were left out of them.

    Attributes:
        num_bad: as given.
    """

    def __init__(self, records: Iterable[dict[str, Any]], num_bad: int = 0) -> None:
        texts = [json.dumps(record).encode() for record in records]
        self.num_bad = num_bad
        self._ends = np.cumsum([len(text) for text in texts])
        self._buffer = np.frombuffer(b"".join(texts), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, item: int) -> dict[str, Any]:
        """One record, fresh at every call."""
        number = range(len(self))[item]
        begin = self._ends[number - 1] if number else 0
        return json.loads(self._buffer[begin : self._ends[number]].tobytes())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[number] for number in range(len(self)))


def collect_regions(
    source: Path, images: dict[Any, dict[str, Any]], rows: Iterable[dict[str, Any]], parse: Parse
) -> RegionRecords:
    """Gather regions by image, in the order of the rows.

    A row that cannot be used (a missing key, no area inside the photo, a coordinate that is no
    finite number, no text) is left out and counted. An image stays when all of its rows are such:
    its record, without a region, is then a bad row to whoever maps it, so that much damage stops a
    training. An image without any row has nothing to learn from and is left out.

    Args:
        source: the annotation file, for messages.
        images: image id -> the record's ``file_name``, ``height`` and ``width``.
        rows: of the annotation file.
        parse: reads a row; a KeyError, TypeError or ValueError means that it is damaged.

    Raises:
        ValueError: if no row can be used; the message has the first reason.
    """
    regions: dict[Any, list[dict[str, Any]]] = {}
    num_good, num_bad, first_reason = 0, 0, "there is none for these images"
    for number, row in enumerate(rows):
        try:
            image_id, region = parse(row)
            if image_id not in images:
                raise ValueError(f"image {image_id} is not listed")
            regions.setdefault(image_id, [])
            check_region(region, (images[image_id]["height"], images[image_id]["width"]))
        except (KeyError, TypeError, ValueError) as error:
            if not num_bad:
                first_reason = f"row {number}: {type(error).__name__}: {error}"
            num_bad += 1
        else:
            regions[image_id].append(region)
            num_good += 1
    if not num_good:
        raise ValueError(f"no usable region in '{source}': {first_reason}")
    if num_bad:
        total = num_good + num_bad
        logger.warning(
            "'%s': %d of %d regions left out, first %s", source, num_bad, total, first_reason
        )
    records = (
        {**images[image_id], "image_id": image_id, "regions": found}
        for image_id, found in regions.items()
    )
    return RegionRecords(records, num_bad)


def index_images(
    source: Path,
    rows: Iterable[dict[str, Any]],
    parse: Callable[[dict[str, Any]], tuple[Any, Path]],
) -> dict[Any, dict[str, Any]]:
    """Image id -> ``file_name``, ``height`` and ``width``, for ``collect_regions``.

    Args:
        source: the annotation file, for messages.
        rows: of its list of images, with ``height`` and ``width``.
        parse: reads id and path from a row.

    Raises:
        ValueError: if a row is damaged.
    """
    images = {}
    for number, row in enumerate(rows):
        with blame_row(source, "image", number):
            image_id, path = parse(row)
            size = {"height": int(row["height"]), "width": int(row["width"])}
        images[image_id] = {"file_name": str(path), **size}
    return images


@contextlib.contextmanager
def blame_row(source: Path, what: str, number: int) -> Iterator[None]:
    """Turn what a damaged row of a json's list raises into a ValueError that says which it is.

    Args:
        source: the json.
        what: its list holds.
        number: of the row.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"'{source}': {what} {number} of the list: {reason}") from error


def find(table: Mapping[Any, Value], key: Any, what: str) -> Value:
    """What a row refers to by its id.

    Raises:
        ValueError: if there is none.
    """
    if key not in table:
        raise ValueError(f"there is no {what} {key!r}")
    return table[key]


def read_json(path: Path, *keys: str) -> Any:
    """The content of a dataset's json file.

    Args:
        path: the file.
        *keys: what its top level must have.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it is not json, or lacks a key.
    """
    require(path)
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"'{path}' is not json: {error}") from error
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f"'{path}' has no {', '.join(map(repr, missing))}")
    return content


def require(path: Path) -> None:
    """Check that a file or folder of a dataset is there.

    Raises:
        FileNotFoundError: if it is missing.
    """
    if not path.exists():
        raise FileNotFoundError(f"'{path}' is missing; datasets/README.md shows the layout")


def check_choice(name: str, value: str, known: Iterable[str], source: Path) -> None:
    """Check a dataset's option against what the dataset has.

    Raises:
        ValueError: if the value is not among them.
    """
    known = list(known)
    if value not in known:
        raise ValueError(f"'{source}' has no {name} '{value}'; it has: {', '.join(known)}")


def corners(x: float, y: float, width: float, height: float) -> list[float]:
    """[x0, y0, x1, y1] of a box given by its top-left corner and its size."""
    return [float(x), float(y), float(x) + float(width), float(y) + float(height)]
