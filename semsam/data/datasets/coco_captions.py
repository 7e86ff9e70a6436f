"""COCO's captions: each describes a photo as a whole, which is a region of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semsam.data.datasets.regions import RegionRecords, collect_regions, index_images, read_json


def load_coco_captions(root: str | Path, split: str = "val2017") -> RegionRecords:
    """Photos of COCO with about five captions each.

    Args:
        root: holds ``annotations/captions_SPLIT.json`` and ``SPLIT/*.jpg``.
        split: ``train2017`` or ``val2017``.

    Returns:
        Records with one region, the whole photo, whose ``region_id`` is the photo's id.

    Raises:
        FileNotFoundError: if the json is missing.
        ValueError: if it is damaged, or no caption can be used.
    """
    source = Path(root) / "annotations" / f"captions_{split}.json"
    content = read_json(source, "images", "annotations")
    photos = Path(root) / split
    images = index_images(
        source, content["images"], lambda row: (row["id"], photos / row["file_name"])
    )
    texts: dict[Any, list[str]] = {}
    for number, row in enumerate(content["annotations"]):
        try:
            texts.setdefault(row["image_id"], []).append(row["caption"].strip())
        except (KeyError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"'{source}': annotation {number} of the list: {reason}") from error

    def parse(row: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        size = images.get(row["image_id"], {"height": 0, "width": 0})
        region = {
            "region_id": row["image_id"],
            "bbox": [0.0, 0.0, float(size["width"]), float(size["height"])],
            "phrases": row["captions"],
        }
        return row["image_id"], region

    rows = ({"image_id": number, "captions": found} for number, found in texts.items())
    return collect_regions(source, images, rows, parse)
