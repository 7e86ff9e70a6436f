"""What a dataset gives for one image, and how its image and masks are decoded.

A record is a dict, detectron2's as far as that goes:

- ``file_name``: path of the image, or where the row is, for messages;
- ``image_id``: what no other image of the dataset has;
- ``image_bytes``: the encoded image, where it does not lie in a file of its own;
- either ``annotations``: a list of dicts with ``segmentation`` (a COCO run-length code or polygons)
  and, if known, ``category_id`` (contiguous, from 0), ``iscrowd`` (1 for a crowd, which no object
  is) and ``point_coords`` ([[x, y]], a click in pixels);
- or ``segments_info`` (a list of dicts with ``id``, ``category_id``, ``iscrowd``) and
  ``pan_seg_file_name`` (a COCO panoptic PNG) or, in shards, a ``segmentation`` (a run-length code)
  of each segment;
- or ``height`` and ``width`` of the photo and ``regions``: a list of dicts with ``region_id``
  (int), ``bbox`` ([x0, y0, x1, y1], float pixels of the photo), ``phrases`` (captions of the
  region, one or more) and, if known, ``segmentation`` (a COCO run-length code or polygons) and
  ``category_id`` (contiguous, from 0);
- or ``sem_seg_file_name`` (a png with a class id in each pixel) and, where its ids are one too high
  and 0 means nothing, ``reduce_zero_label``; in shards ``label_masks`` instead: a list of dicts
  with ``category_id``, the id, and ``segmentation``, its pixels as a run-length code, which
  together are all pixels;
- ``image_info``: what SA-1B's json says of the photo, if it does.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from semsam.data.run_length import IntArray, RunLengthMasks, to_coco_code

_EXIF_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)
#: Label of pixels that no segment has.
_NO_CLASS = 255


class BadRecordError(ValueError):
    """A row or an image that cannot be used; loaders log it, count it and go on."""


class LostShardError(FileNotFoundError):
    """A file with many rows is gone: going on would train on other data, so nothing catches it."""


@contextlib.contextmanager
def blame(where: str) -> Iterator[None]:
    """Turn what decoders raise on damaged data into a BadRecordError that says where."""
    try:
        yield
    except (BadRecordError, LostShardError):
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


@dataclass(frozen=True)
class Regions:
    """The described regions of one image in its own frame.

    Attributes:
        ids: R region ids.
        boxes: (R, 4) float64 XYXY pixels, cut at the photo's edges; none is empty.
        phrases: R lists of captions, one or more each.
        classes: (R,) contiguous class indices; 0 where regions have no class.
        masks: R masks, or None where they were not asked for.
    """

    ids: list[int]
    boxes: NDArray[np.float64]
    phrases: list[list[str]]
    classes: IntArray
    masks: RunLengthMasks | None = None


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
    """Read a record's masks, as runs, without those of crowds.

    Args:
        record: see the module's description.
        size: (height, width) of the image.

    Raises:
        BadRecordError: if a mask is damaged, missing, or of another size than the image.
    """
    with blame(record["file_name"]):
        if "segments_info" in record:
            return _panoptic(record, size)
        annotations = [a for a in record["annotations"] if not a.get("iscrowd", 0)]
        masks = RunLengthMasks.from_coco(
            [_code(a["segmentation"], size) for a in annotations], size
        )
        classes = np.array([a.get("category_id", 0) for a in annotations], dtype=np.int64)
        clicks = None
        if annotations and all("point_coords" in a for a in annotations):
            clicks = np.array([a["point_coords"][0] for a in annotations], dtype=np.float64)
            clicks = clicks.reshape(len(annotations), 2)
        return Annotations(masks, classes, clicks)


def _code(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    """A run-length code of a mask that may be polygons."""
    return to_coco_code(segmentation, size) if isinstance(segmentation, list) else segmentation


def decode_regions(
    record: dict[str, Any], size: tuple[int, int], with_masks: bool = False
) -> Regions:
    """Read a record's regions.

    Args:
        record: see the module's description.
        size: (height, width) of the image.
        with_masks: whether to read their masks as well.

    Raises:
        BadRecordError: if there is no region, the record states another size than the image's,
            ``check_region`` refuses a region, or a mask is damaged or missing.
    """
    with blame(record["file_name"]):
        stated = record["height"], record["width"]
        if stated != size:
            raise ValueError(f"the image is {size}, its regions are for {stated} (height, width)")
        regions = [check_region(region, size) for region in record["regions"]]
        if not regions:
            raise ValueError("no usable region")
        return Regions(
            ids=[region["region_id"] for region in regions],
            boxes=clip_boxes(np.array([region["bbox"] for region in regions]), size),
            phrases=[region["phrases"] for region in regions],
            classes=np.array([region.get("category_id", 0) for region in regions], dtype=np.int64),
            masks=_region_masks(regions, size) if with_masks else None,
        )


def _region_masks(regions: list[dict[str, Any]], size: tuple[int, int]) -> RunLengthMasks:
    """Masks of regions, which are run-length codes or polygons."""
    codes = []
    for region in regions:
        if "segmentation" not in region:
            raise ValueError(
                f"region {region['region_id']} has no 'segmentation' to learn masks from; to learn "
                "captions alone set MODEL.CRITERION.NAME to ''"
            )
        try:
            codes.append(to_coco_code(region["segmentation"], size))
        except ValueError as error:
            raise ValueError(f"region {region['region_id']}: {error}") from None
    return RunLengthMasks.from_coco(codes, size)


def check_region(region: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """A region as it came, if it can be used on an image of (height, width).

    Raises:
        KeyError: if a key is missing.
        ValueError: if no part of the box lies inside the image, a coordinate is not a finite
            number, or there is no phrase or an empty one. The message names the region.
    """
    where, box, phrases = f"region {region['region_id']}", region["bbox"], region["phrases"]
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        raise ValueError(f"{where}: 'bbox' is {box}, not four finite numbers")
    x0, y0, x1, y1 = box
    if min(x1, size[1]) <= max(x0, 0) or min(y1, size[0]) <= max(y0, 0):
        raise ValueError(f"{where}: 'bbox' {box} has no area inside the image of {size}")
    if not phrases or not all(isinstance(phrase, str) and phrase.strip() for phrase in phrases):
        raise ValueError(f"{where}: 'phrases' is {phrases}, not a list of texts")
    return region


def clip_boxes(boxes: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.float64]:
    """(N, 4) XYXY boxes, cut at the edges of a frame of (height, width)."""
    limits = np.array([size[1], size[0]] * 2, dtype=np.float64)
    return np.clip(np.asarray(boxes, dtype=np.float64), 0, limits)


def decode_segments(record: dict[str, Any]) -> IntArray:
    """The segment that each pixel belongs to.

    Args:
        record: with ``segments_info``.

    Returns:
        (H, W) ids of ``segments_info``; 0 for none.

    Raises:
        BadRecordError: if the file is missing, or no picture, or a run-length code is damaged.
    """
    if "pan_seg_file_name" not in record:
        return _paint(record, record["segments_info"], "id")
    path = record["pan_seg_file_name"]
    with blame(path), Image.open(path) as image:
        colours = np.asarray(image.convert("RGB")).astype(np.int64)
    return colours @ np.array([1, 256, 256 * 256])


def _paint(record: dict[str, Any], parts: list[dict[str, Any]], key: str) -> IntArray:
    """(H, W) the value that a key has in the part to which a pixel belongs; 0 for none."""
    with blame(record["file_name"]):
        size = record["height"], record["width"]
        masks = RunLengthMasks.from_coco([part["segmentation"] for part in parts], size)
        labels = np.zeros(size, dtype=np.int64)
        for part, mask in zip(parts, masks.decode(), strict=True):
            labels[mask] = part[key]
    return labels


def _panoptic(record: dict[str, Any], size: tuple[int, int]) -> Annotations:
    segments = [s for s in record["segments_info"] if not s.get("iscrowd", 0)]
    if "pan_seg_file_name" in record:
        labels = decode_segments(record)
        if labels.shape != size:
            raise ValueError(f"the panoptic image is {labels.shape}, the image {size}")
        masks = RunLengthMasks.from_labels(labels, [s["id"] for s in segments])
    else:
        masks = RunLengthMasks.from_coco([s["segmentation"] for s in segments], size)
    missing = [s["id"] for s, area in zip(segments, masks.areas, strict=True) if area == 0]
    if missing:
        raise ValueError(f"segments {missing} have no pixel")
    classes = np.array([s["category_id"] for s in segments], dtype=np.int64)
    return Annotations(masks, classes, None)


def decode_labels(record: dict[str, Any]) -> NDArray[np.integer]:
    """The class of each pixel.

    Args:
        record: with ``sem_seg_file_name`` or ``label_masks``, or else of panoptic segments.

    Returns:
        (H, W) ids as the file has them; with ``reduce_zero_label`` one less, and 0 becomes the
        file type's highest number, 255. Of panoptic segments the class, 255 for none and crowds.

    Raises:
        BadRecordError: if the file is missing, or no picture of one channel, or a run-length code
            is damaged.
    """
    if "segments_info" in record:
        return _segment_classes(record)
    if "label_masks" in record:
        return _paint(record, record["label_masks"], "category_id")
    path = record["sem_seg_file_name"]
    with blame(path), Image.open(path) as image:
        labels = np.asarray(image)
        if labels.ndim != 2:
            raise BadRecordError(f"{path}: labels have one channel, not {labels.shape[2]}")
    return labels - labels.dtype.type(1) if record.get("reduce_zero_label") else labels


def _segment_classes(record: dict[str, Any]) -> IntArray:
    ids = decode_segments(record)
    labels = np.full(ids.shape, _NO_CLASS, dtype=np.int64)
    for segment in record["segments_info"]:
        if not segment.get("iscrowd", 0):
            labels[ids == segment["id"]] = segment["category_id"]
    return labels
