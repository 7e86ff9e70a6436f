"""Detection datasets: the caption of a region is the name of its category.

COCO, Objects365 and V3Det come in COCO's json; classes are numbered from 0 by rising ``id`` of its
categories. SCA is trained on Objects365 before it sees Visual Genome ("Segment and Caption
Anything", section 3.3), and Semantic-SAM learns boxes and names from it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from semsam.data.datasets.instances import describe_coco_json, read_categories
from semsam.data.datasets.regions import (
    RegionRecords,
    collect_regions,
    corners,
    find,
    index_images,
    read_json,
)


def load_coco_classes(root: str | Path, split: str = "val2017") -> RegionRecords:
    """Things of COCO.

    Args:
        root: holds ``annotations/instances_SPLIT.json`` and ``SPLIT/*.jpg``.
        split: ``train2017`` or ``val2017``.

    Raises:
        FileNotFoundError: if the json is missing.
        ValueError: if it is damaged, or no region can be used.
    """
    root = Path(root)
    source = root / "annotations" / f"instances_{split}.json"
    return _load(source, lambda name: root / split / name)


def load_objects365(root: str | Path, split: str = "val") -> RegionRecords:
    """Objects365, version 2.

    Args:
        root: holds ``annotations/zhiyuan_objv2_SPLIT.json`` and ``SPLIT/patchN/*.jpg``.
        split: ``train`` or ``val``.

    Raises:
        FileNotFoundError: if the json is missing.
        ValueError: if it is damaged, or no region can be used.
    """
    root, source = Path(root), _objects365_json(root, split)
    # The json says images/v1/patch8/NAME; what is unpacked is patch8/NAME.
    return _load(source, lambda name: root.joinpath(split, *PurePosixPath(name).parts[-2:]))


def describe_objects365(root: str | Path, split: str = "val") -> dict[str, Any]:
    """The metadata of :func:`load_objects365`, as of ``semsam.data.datasets.instances``."""
    return describe_coco_json(_objects365_json(root, split))


def load_v3det(root: str | Path, split: str = "val") -> RegionRecords:
    """V3Det, version 1.

    Args:
        root: holds ``annotations/v3det_2023_v1_SPLIT.json`` and the files that it names.
        split: ``train`` or ``val``.

    Raises:
        FileNotFoundError: if the json is missing.
        ValueError: if it is damaged, or no region can be used.
    """
    root = Path(root)
    return _load(root / "annotations" / f"v3det_2023_v1_{split}.json", lambda name: root / name)


def _objects365_json(root: str | Path, split: str) -> Path:
    return Path(root) / "annotations" / f"zhiyuan_objv2_{split}.json"


def _load(source: Path, place: Callable[[str], Path]) -> RegionRecords:
    """Records of a COCO-style json; crowds are left out.

    Args:
        source: the json.
        place: ``file_name`` of an image -> where it lies.
    """
    content = read_json(source, "images", "annotations", "categories")
    images = index_images(
        source, content["images"], lambda row: (row["id"], place(row["file_name"]))
    )
    categories = read_categories(source, content)
    classes = {row["id"]: (number, row["name"]) for number, row in enumerate(categories)}

    def parse(row: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        number, name = find(classes, row["category_id"], "category")
        region = {
            "region_id": row["id"],
            "bbox": corners(*row["bbox"]),
            "phrases": [name],
            "category_id": number,
        }
        if "segmentation" in row:
            region["segmentation"] = row["segmentation"]
        return row["image_id"], region

    rows = (row for row in content["annotations"] if not row.get("iscrowd", 0))
    return collect_regions(source, images, rows, parse)
