"""COCO-style jsons of objects, joined and cut as the datasets of which they are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from semsam.data.datasets.regions import read_json


def join_ground_truth(files: Sequence[Path]) -> dict[str, Any]:
    """The images and objects of several jsons; objects are numbered anew from 1.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if one is damaged, two have other categories, or an image is in two.
    """
    joined: dict[str, Any] = {}
    seen: dict[Any, Path] = {}
    for file in files:
        content = _read(file)
        if not joined:
            joined = {**content, "images": [], "annotations": []}
        if content["categories"] != joined["categories"]:
            raise ValueError(f"'{files[0]}' and '{file}' have other categories")
        for image in content["images"]:
            if image["id"] in seen:
                raise ValueError(f"image {image['id']} is in '{seen[image['id']]}' and '{file}'")
            seen[image["id"]] = file
        joined["images"] += content["images"]
        joined["annotations"] += content["annotations"]
    joined["annotations"] = [
        {**row, "id": number} for number, row in enumerate(joined["annotations"], start=1)
    ]
    return joined


def cut_ground_truth(file: Path, image_ids: Collection[Any]) -> dict[str, Any]:
    """A json with some of its images, and their objects.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is damaged.
    """
    content = _read(file)
    return {
        **content,
        "images": [image for image in content["images"] if image["id"] in image_ids],
        "annotations": [row for row in content["annotations"] if row["image_id"] in image_ids],
    }


def _read(file: Path) -> dict[str, Any]:
    content = read_json(file, "images", "annotations", "categories")
    for key in ("images", "annotations"):
        needed = "id" if key == "images" else "image_id"
        if not all(isinstance(row, dict) and needed in row for row in content[key]):
            raise ValueError(f"'{file}': a row of {key} has no '{needed}'")
    return content
