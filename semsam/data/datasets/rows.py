"""A record of any dataset as the row of a shard: json, and the image file as it is.

The json has ``image_id``, ``height`` and ``width``, and of a record (``semsam.data.records``) its
``annotations``, ``segments_info``, ``label_masks`` or ``regions``. Masks are run-length codes,
whether they were polygons, pictures of segments or label maps. With ``annotations`` it is a json of
SA-1B.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from semsam.data.datasets.tar import image_kind
from semsam.data.records import (
    BadRecordError,
    LazyImage,
    blame,
    decode_annotations,
    decode_labels,
    decode_regions,
    decode_segments,
)
from semsam.data.run_length import IntArray, RunLengthMasks, to_coco_code

#: What may be known of an image; a record has one of them.
KINDS = ("annotations", "segments_info", "label_masks", "regions")
_KEPT = ("image_id", "height", "width", "image_info", *KINDS)


def describe_record(record: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The json of a record and its image file, checked.

    Raises:
        BadRecordError: if the image cannot be decoded, or what is known of it not be used.
        ValueError: if rows cannot hold the record.
    """
    if "text_embeddings" in record:
        raise ValueError(
            f"{record['file_name']}: rows hold no embeddings of names; shards that have them are "
            "joined and parted by tools/data.py"
        )
    where = record["file_name"]
    size = LazyImage(record).size
    with blame(where):
        _check_size(record, size)
        image = record.get("image_bytes") or Path(where).read_bytes()
        content = {"image_id": record["image_id"], "height": size[0], "width": size[1]}
        if "image_info" in record:
            content["image"] = record["image_info"]
        content |= masks_as_codes(record, size)
    check_record({"file_name": where, "image_bytes": image, **content})
    return content, image


def check_record(record: dict[str, Any]) -> None:
    """Decode all that a record has.

    Raises:
        BadRecordError: if its image, a mask or a region cannot be used, or differ in size.
    """
    photo = LazyImage(record)
    photo.decode((1, 1))
    with blame(record["file_name"]):
        _check_size(record, photo.size)
        if "regions" in record:
            decode_regions(record, photo.size)
            drawn = [region for region in record["regions"] if "segmentation" in region]
            RunLengthMasks.from_coco(
                [to_coco_code(region["segmentation"], photo.size) for region in drawn], photo.size
            )
        elif "segments_info" in record or "annotations" in record:
            key = "segments_info" if "segments_info" in record else "annotations"
            everything = [{**item, "iscrowd": 0} for item in record[key]]
            decode_annotations({**record, key: everything}, photo.size)
        elif (labels := decode_labels(record)).shape != photo.size:
            raise ValueError(f"labels are {labels.shape}, the image is {photo.size}")


def record_row(record: dict[str, Any]) -> list[bytes]:
    """The columns of a record in a TSV shard: name, json, base64 image.

    Raises:
        BadRecordError: also if the id has a tab or a line break.
        ValueError: as ``describe_record``.
    """
    content, image = describe_record(record)
    name = str(content["image_id"])
    if any(mark in name for mark in "\t\n\r"):
        raise BadRecordError(f"{record['file_name']}: a row's name has no tab or line break")
    return [name.encode(), json.dumps(content).encode(), base64.b64encode(image)]


def record_sample(record: dict[str, Any]) -> dict[str, bytes]:
    """The members of a record in a tar shard: the image, and ``json``.

    Raises:
        BadRecordError: also if the image is of a format that samples do not have.
        ValueError: as ``describe_record``.
    """
    content, image = describe_record(record)
    with blame(record["file_name"]):
        return {image_kind(image): image, "json": json.dumps(content).encode()}


def parse_row(text: bytes) -> dict[str, Any]:
    """Keys of a record from the json of a row.

    Raises:
        ValueError, KeyError, TypeError: if it is not what it should be.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        # As a label file may have it.
        content = {"annotations": content}
    if not any(kind in content for kind in KINDS):
        raise ValueError(f"the json has none of: {', '.join(KINDS)}")
    if not all("segmentation" in item for item in content.get("annotations", [])):
        raise ValueError("an annotation has no 'segmentation'")
    if "image" in content:
        content["image_info"] = content["image"]
    return {key: content[key] for key in _KEPT if key in content}


def parse_sample(record: dict[str, Any], members: dict[str, bytes]) -> dict[str, Any]:
    """Keys of a record from the members of a sample; errors as ``parse_row``."""
    return parse_row(members["json"])


def _check_size(record: dict[str, Any], size: tuple[int, int]) -> None:
    stated = record.get("height", size[0]), record.get("width", size[1])
    if stated != size:
        raise ValueError(f"the record says {stated}, the image is {size}")


def masks_as_codes(
    record: dict[str, Any], size: tuple[int, int]
) -> dict[str, list[dict[str, Any]]]:
    """The one of ``KINDS`` that an image of (height, width) has, its masks as run-length codes.

    Raises:
        BadRecordError, ValueError: if a mask is damaged or missing.
    """
    for key in ("annotations", "regions", "label_masks"):
        if key in record:
            return {key: [_with_code(item, size) for item in record[key]]}
    if "segments_info" in record:
        segments = record["segments_info"]
        if "pan_seg_file_name" not in record:
            return {"segments_info": [_with_code(item, size) for item in segments]}
        codes = _encode(decode_segments(record), [segment["id"] for segment in segments])
        drawn = [{**s, "segmentation": code} for s, code in zip(segments, codes, strict=True)]
        return {"segments_info": drawn}
    labels = decode_labels(record).astype(np.int64)
    present = np.unique(labels).tolist()
    drawn = [
        {"category_id": label, "segmentation": code}
        for label, code in zip(present, _encode(labels, present), strict=True)
    ]
    return {"label_masks": drawn}


def _with_code(item: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    if "segmentation" not in item:
        return item
    return {**item, "segmentation": to_coco_code(item["segmentation"], size)}


def _encode(labels: IntArray, ids: list[int]) -> list[dict[str, Any]]:
    """A run-length code of the pixels of each label of an (H, W) map."""
    codes = []
    for number in ids:
        code = coco_mask.encode(np.asfortranarray(labels == number, dtype=np.uint8))
        codes.append(to_coco_code(code, labels.shape))
    return codes
