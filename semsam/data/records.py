"""What a dataset gives for one image, and how its image and masks are decoded.

A record is a dict, detectron2's as far as that goes:

- ``file_name``: path of the image, or where the row is, for messages;
- ``image_id``: what no other image of the dataset has;
- ``image_bytes``: the encoded image, where it does not lie in a file of its own;
- either ``annotations``: a list of dicts with ``segmentation`` (a COCO run-length code) and, if
  known, ``category_id`` (contiguous, from 0) and ``point_coords`` ([[x, y]], a click in pixels);
- or ``pan_seg_file_name`` (a COCO panoptic PNG) and ``segments_info`` (a list of dicts with ``id``,
  ``category_id``, ``iscrowd``).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from semsam.data.run_length import IntArray, RunLengthMasks

_EXIF_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)


class BadRecordError(ValueError):
    """A row or an image that cannot be used; loaders log it, count it and go on."""


@contextlib.contextmanager
def blame(where: str) -> Iterator[None]:
    """Turn what decoders raise on damaged data into a BadRecordError that says where."""
    try:
        yield
    except BadRecordError:
        raise
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        SyntaxError,  # PIL, on a broken PNG
        Image.DecompressionBombError,
    ) as error:
        raise BadRecordError(f"{where}: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Annotations:
    """The objects of one image in its own frame.

    Attributes:
        masks: M masks.
        classes: (M,) contiguous class indices; 0 where objects have no class.
        clicks: (M, 2) x, y in pixels, or None where the dataset states none.
    """

    masks: RunLengthMasks
    classes: IntArray
    clicks: NDArray[np.float64] | None


class LazyImage:
    """An encoded image whose size is known before its pixels are decoded.

    Args:
        record: see the module's description.

    Raises:
        BadRecordError: if there is no such file, or it is not an image.
    """

    def __init__(self, record: dict[str, Any]) -> None:
        self._where = record["file_name"]
        with blame(self._where):
            if "image_bytes" in record:
                self._image = Image.open(io.BytesIO(record["image_bytes"]))
            else:
                self._image = Image.open(record["file_name"])
            turn = self._image.getexif().get(_EXIF_ORIENTATION)
        width, height = self._image.size
        self._turned = turn in _QUARTER_TURNS
        #: (height, width) in pixels, upright.
        self.size = (width, height) if self._turned else (height, width)

    def decode(self, reduce_to: tuple[int, int] | None = None) -> Image.Image:
        """Decode the pixels, once, to RGB, upright.

        Args:
            reduce_to: (height, width) that suffice; a JPEG may then come at 1/2, 1/4 or 1/8 of its
                size, never smaller than this.

        Raises:
            BadRecordError: if the file is damaged or cut short.
        """
        with blame(self._where):
            if reduce_to is not None:
                height, width = reduce_to[::-1] if self._turned else reduce_to
                self._image.draft(None, (width, height))
            return ImageOps.exif_transpose(self._image).convert("RGB")


def decode_annotations(record: dict[str, Any], size: tuple[int, int]) -> Annotations:
    """Read a record's masks, as runs.

    Args:
        record: see the module's description.
        size: (height, width) of the image.

    Raises:
        BadRecordError: if a mask is damaged, missing, or of another size than the image.
    """
    with blame(record["file_name"]):
        if "pan_seg_file_name" in record:
            return _panoptic(record, size)
        annotations = record["annotations"]
        masks = RunLengthMasks.from_coco([a["segmentation"] for a in annotations], size)
        classes = np.array([a.get("category_id", 0) for a in annotations], dtype=np.int64)
        clicks = None
        if annotations and all("point_coords" in a for a in annotations):
            clicks = np.array([a["point_coords"][0] for a in annotations], dtype=np.float64)
            clicks = clicks.reshape(len(annotations), 2)
        return Annotations(masks, classes, clicks)


def _panoptic(record: dict[str, Any], size: tuple[int, int]) -> Annotations:
    with Image.open(record["pan_seg_file_name"]) as image:
        colours = np.asarray(image.convert("RGB")).astype(np.int64)
    labels = colours @ np.array([1, 256, 256 * 256])
    if labels.shape != size:
        raise ValueError(f"the panoptic image is {labels.shape}, the image {size}")
    segments = [s for s in record["segments_info"] if not s.get("iscrowd", 0)]
    masks = RunLengthMasks.from_labels(labels, [s["id"] for s in segments])
    missing = [s["id"] for s, area in zip(segments, masks.areas, strict=True) if area == 0]
    if missing:
        raise ValueError(f"segments {missing} have no pixel in {record['pan_seg_file_name']}")
    classes = np.array([s["category_id"] for s in segments], dtype=np.int64)
    return Annotations(masks, classes, None)
