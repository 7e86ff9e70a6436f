"""Visual Genome's region descriptions (Krishna et al., 2016), of which SCA learns its captions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from semsam.data.datasets.regions import (
    RegionRecords,
    check_choice,
    collect_regions,
    corners,
    index_images,
    read_json,
)


def load_visual_genome(
    root: str | Path, split: str = "test", annotations: str = "densecap"
) -> RegionRecords:
    """Records of a split, captions as they were written.

    Args:
        root: holds ``image_data.json``, the images as ``VG_100K/ID.jpg`` and ``VG_100K_2/ID.jpg``,
            and the annotations.
        split: ``train``, ``val`` or ``test`` of dense captioning (Johnson et al., 2016).
        annotations: ``densecap`` for ``region_descriptions.json`` (version 1.2) with
            ``densecap_splits.json``; ``grit`` for GRiT's cleaned text, ``grit/SPLIT.json``, which
            has no ``val``.

    Raises:
        FileNotFoundError: if a json is missing.
        ValueError: if a json is damaged, there is no such split, or no region can be used.
    """
    root = Path(root)
    check_choice("annotations", annotations, ("densecap", "grit"), root)
    image_file = root / "image_data.json"
    images = index_images(
        image_file, read_json(image_file), lambda row: (row["image_id"], _photo(root, row))
    )
    if annotations == "grit":
        check_choice("split", split, ("train", "test"), root / "grit")
        source = root / "grit" / f"{split}.json"
        rows = read_json(source, "annotations")["annotations"]
        return collect_regions(source, images, rows, _parse_grit)
    split_file = root / "densecap_splits.json"
    splits = read_json(split_file)
    check_choice("split", split, splits, split_file)
    wanted = set(splits[split])
    source = root / "region_descriptions.json"
    return collect_regions(source, images, _rows(source, wanted), _parse)


def _photo(root: Path, row: dict[str, Any]) -> Path:
    """The images lie in two folders; the url of an image tells in which."""
    return root.joinpath(*PurePosixPath(row["url"]).parts[-2:])


def _rows(source: Path, wanted: set[int]) -> Iterator[dict[str, Any]]:
    for number, image in enumerate(read_json(source)):
        # The released file says "id", its documentation "image_id".
        image_id = image.get("id", image.get("image_id"))
        if image_id is None or "regions" not in image:
            raise ValueError(f"'{source}': entry {number} has no 'id' or no 'regions'")
        if image_id in wanted:
            yield from ({**region, "image_id": image_id} for region in image["regions"])


def _parse(row: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return row["image_id"], {
        "region_id": row["region_id"],
        "bbox": corners(row["x"], row["y"], row["width"], row["height"]),
        "phrases": [row["phrase"]],
    }


def _parse_grit(row: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return row["image_id"], {
        "region_id": row["id"],
        "bbox": corners(*row["bbox"]),
        "phrases": [row["caption"]],
    }
