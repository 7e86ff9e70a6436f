"""COCO panoptic segmentation in its standard layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from semsam.data.datasets.regions import read_json


def load_coco_panoptic(root: str | Path, split: str = "val2017") -> list[dict[str, Any]]:
    """Records of a split: things and stuff, a segment each.

    Args:
        root: holds ``annotations/panoptic_SPLIT.json``, ``panoptic_SPLIT/*.png``, ``SPLIT/*.jpg``.
        split: ``train2017`` or ``val2017``.

    Returns:
        Records with ``pan_seg_file_name`` and ``segments_info``; the ``category_id`` there is an
        index into the json's categories.

    Raises:
        FileNotFoundError: if the json or a folder is missing.
    """
    root = Path(root)
    json_file, images = _json_file(root, split), root / split
    for path in (json_file, images, root / f"panoptic_{split}"):
        if not path.exists():
            raise FileNotFoundError(f"'{path}' is missing; datasets/README.md shows the layout")
    content = json.loads(json_file.read_text())
    class_index = {c["id"]: number for number, c in enumerate(content["categories"])}
    image_names = {image["id"]: image["file_name"] for image in content["images"]}
    return [
        {
            "file_name": str(images / image_names[annotation["image_id"]]),
            "image_id": annotation["image_id"],
            "pan_seg_file_name": str(root / f"panoptic_{split}" / annotation["file_name"]),
            "segments_info": [
                {**segment, "category_id": class_index[segment["category_id"]]}
                for segment in annotation["segments_info"]
            ],
        }
        for annotation in content["annotations"]
    ]


def describe_coco_panoptic(root: str | Path, split: str = "val2017") -> dict[str, Any]:
    """Metadata of a split, detectron2's names for them.

    Things and stuff share one numbering, that of the json's categories.

    Returns:
        ``panoptic_json``; ``json_file`` of the same photos' instances; ``thing_classes`` and
        ``stuff_classes``, both the names of all categories; the maps from ``category_id`` to
        number, ``thing_dataset_id_to_contiguous_id`` and ``stuff_dataset_id_to_contiguous_id``.

    Raises:
        FileNotFoundError: if the json is missing.
        ValueError: if it is damaged.
    """
    json_file = _json_file(Path(root), split)
    categories = read_json(json_file, "categories")["categories"]
    names = [category["name"] for category in categories]
    numbers = {
        kind: {c["id"]: number for number, c in enumerate(categories) if c["isthing"] == is_thing}
        for kind, is_thing in (("thing", 1), ("stuff", 0))
    }
    return {
        "panoptic_json": str(json_file),
        "json_file": str(Path(root) / "annotations" / f"instances_{split}.json"),
        "thing_classes": names,
        "stuff_classes": names,
        "thing_dataset_id_to_contiguous_id": numbers["thing"],
        "stuff_dataset_id_to_contiguous_id": numbers["stuff"],
    }


def _json_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"panoptic_{split}.json"
