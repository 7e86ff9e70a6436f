"""Panoptic segmentation in COCO's form: a json of segments, and a PNG with an id in each pixel.

A record has ``file_name``, ``image_id``, ``pan_seg_file_name`` and ``segments_info``
(``semsam.data.records``); a segment's ``category_id`` is an index into the json's categories, which
things and stuff share. The metadata are detectron2's: ``panoptic_json``; ``json_file`` of the same
photos' instances; ``thing_classes`` and ``stuff_classes``, both the names of all categories; and
maps from ``category_id`` to number, ``thing_dataset_id_to_contiguous_id`` and
``stuff_dataset_id_to_contiguous_id``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semsam.data.datasets.regions import (
    blame_row,
    check_choice,
    find,
    read_json,
    require,
)

#: ADE20K's folders of photos, by the word that its files of segments have for a split.
_ADE20K_PHOTOS = {"train": "training", "val": "validation"}


@dataclass(frozen=True)
class _Files:
    """Where a split lies: the json of segments, their PNGs, photos, and the json of instances."""

    panoptic: Path
    segments: Path
    photos: Path
    instances: Path


def load_coco_panoptic(root: str | Path, split: str = "val2017") -> list[dict[str, Any]]:
    """COCO: 80 classes of things and 53 of stuff.

    Args:
        root: holds ``annotations/panoptic_SPLIT.json``, ``panoptic_SPLIT/*.png``, ``SPLIT/*.jpg``.
        split: ``train2017`` or ``val2017``.

    Raises:
        FileNotFoundError: if the json or a folder is missing.
        ValueError: if the json is damaged; names the row.
    """
    return _load(_coco(root, split))


def describe_coco_panoptic(root: str | Path, split: str = "val2017") -> dict[str, Any]:
    """The metadata of :func:`load_coco_panoptic`.

    Raises:
        FileNotFoundError: if the json is missing.
        ValueError: if it is damaged.
    """
    return _describe(_coco(root, split))


def load_ade20k_panoptic(root: str | Path, split: str = "val") -> list[dict[str, Any]]:
    """ADE20K of the scene parsing challenge: 100 classes of things and 50 of stuff.

    Args:
        root: holds ``ade20k_panoptic_SPLIT.json`` and ``ade20k_panoptic_SPLIT/*.png``, which
            Mask2Former's ``prepare_ade20k_pan_seg.py`` makes, and
            ``images/{training,validation}/*.jpg``.
        split: ``train`` or ``val``.

    Raises:
        FileNotFoundError: if the json or a folder is missing.
        ValueError: if the json is damaged; names the row. If there is no such split.
    """
    return _load(_ade20k(root, split))


def describe_ade20k_panoptic(root: str | Path, split: str = "val") -> dict[str, Any]:
    """The metadata of :func:`load_ade20k_panoptic`.

    ``json_file`` is that of ``prepare_ade20k_ins_seg.py``, whose category ids are the same.

    Raises:
        FileNotFoundError: if the json is missing.
        ValueError: if it is damaged, or there is no such split.
    """
    return _describe(_ade20k(root, split))


def _coco(root: str | Path, split: str) -> _Files:
    root = Path(root)
    annotations = root / "annotations"
    return _Files(
        panoptic=annotations / f"panoptic_{split}.json",
        segments=root / f"panoptic_{split}",
        photos=root / split,
        instances=annotations / f"instances_{split}.json",
    )


def _ade20k(root: str | Path, split: str) -> _Files:
    root = Path(root)
    check_choice("split", split, _ADE20K_PHOTOS, root)
    return _Files(
        panoptic=root / f"ade20k_panoptic_{split}.json",
        segments=root / f"ade20k_panoptic_{split}",
        photos=root / "images" / _ADE20K_PHOTOS[split],
        instances=root / f"ade20k_instance_{split}.json",
    )


def _load(files: _Files) -> list[dict[str, Any]]:
    for path in (files.panoptic, files.photos, files.segments):
        require(path)
    content = read_json(files.panoptic, "images", "annotations", "categories")
    numbers = {c["id"]: number for number, c in enumerate(content["categories"])}
    photos = {image["id"]: image["file_name"] for image in content["images"]}
    records = []
    for row, annotation in enumerate(content["annotations"]):
        with blame_row(files.panoptic, "annotation", row):
            record = {
                "file_name": str(files.photos / find(photos, annotation["image_id"], "image")),
                "image_id": annotation["image_id"],
                "pan_seg_file_name": str(files.segments / annotation["file_name"]),
                "segments_info": [
                    {**segment, "category_id": find(numbers, segment["category_id"], "category")}
                    for segment in annotation["segments_info"]
                ],
            }
        records.append(record)
    return records


def _describe(files: _Files) -> dict[str, Any]:
    categories = read_json(files.panoptic, "categories")["categories"]
    names = [category["name"].strip() for category in categories]
    numbers = {
        kind: {c["id"]: number for number, c in enumerate(categories) if c["isthing"] == is_thing}
        for kind, is_thing in (("thing", 1), ("stuff", 0))
    }
    return {
        "panoptic_json": str(files.panoptic),
        "json_file": str(files.instances),
        "thing_classes": names,
        "stuff_classes": names,
        "thing_dataset_id_to_contiguous_id": numbers["thing"],
        "stuff_dataset_id_to_contiguous_id": numbers["stuff"],
    }
