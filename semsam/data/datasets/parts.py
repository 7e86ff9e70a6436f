"""Objects and their parts, in COCO's json: PACO, Pascal-Part, PartImageNet.

Records are those of ``semsam.data.datasets.instances``. A part's class is called ``whole:part``;
the metadata have, beside those of any objects, ``is_part``, a bool a class: a model that names
masks has a space of its own for names of parts. Polygons of fewer than three corners and objects
without a mask, which PartImageNet and PACO have, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from semsam.data.datasets.instances import class_metadata, load_objects, read_categories
from semsam.data.datasets.regions import RegionRecords, check_choice

#: Gives a category another name.
Rename = Callable[[dict[str, Any]], dict[str, Any]]

_SPLITS = ("train", "val", "test")
#: Characters of a photo's name that are its folder in ImageNet (``n01440764``).
_SYNSET = 9


def load_parts(json_file: str | Path, images: str | None = None) -> RegionRecords:
    """Any objects and parts in PACO's form.

    Args:
        json_file: with ``images``, ``annotations`` and ``categories``.
        images: folder of the photos, to which the json's ``file_name`` are relative; that of the
            json if None.

    Raises:
        FileNotFoundError: if the json is missing.
        ValueError: if it is damaged, no category is a part, or a part's whole is not among the
            categories, although others are.
    """
    source = Path(json_file)
    folder = source.parent if images is None else Path(images)
    return _load(source, lambda row: folder / row["file_name"])


def describe_parts(json_file: str | Path, images: str | None = None) -> dict[str, Any]:
    """The metadata of :func:`load_parts`, with groups of parts and of whole objects."""
    return _describe(Path(json_file))


def load_paco(root: str | Path, split: str = "val", images: str | None = None) -> RegionRecords:
    """PACO-LVIS (Ramanathan et al., 2023): 75 classes of objects, 456 of their parts.

    Args:
        root: holds ``annotations/paco_lvis_v1_SPLIT.json``.
        split: ``train``, ``val`` or ``test``.
        images: folder of COCO's ``train2017`` and ``val2017``; ``coco`` beside ``root`` if None.

    Raises:
        FileNotFoundError: if the json is missing.
        ValueError: as :func:`load_parts`, or if there is no such split.
    """
    folder = Path(root).parent / "coco" if images is None else Path(images)
    return _load(_paco_json(root, split), lambda row: folder / row["file_name"])


def describe_paco(
    root: str | Path, split: str = "val", images: str | None = None
) -> dict[str, Any]:
    """The metadata of :func:`load_paco`; its evaluation is LVIS's."""
    return _describe(_paco_json(root, split))


def load_pascal_part(root: str | Path, split: str = "val") -> RegionRecords:
    """Pascal-Part (Chen et al., 2014): 93 parts of 14 kinds of objects.

    Args:
        root: holds ``SPLIT.json``, which VLPart's ``pascal_part_mat2json.py`` makes, and
            ``VOCdevkit/VOC2010/JPEGImages/*.jpg``.
        split: ``train`` or ``val``.

    Raises:
        FileNotFoundError: if the json is missing.
        ValueError: as :func:`load_parts`, or if there is no such split.
    """
    photos = Path(root) / "VOCdevkit" / "VOC2010" / "JPEGImages"
    return _load(_split_json(root, split), lambda row: photos / row["file_name"])


def describe_pascal_part(root: str | Path, split: str = "val") -> dict[str, Any]:
    """The metadata of :func:`load_pascal_part`."""
    return _describe(_split_json(root, split))


def load_partimagenet(root: str | Path, split: str = "val") -> RegionRecords:
    """PartImageNet (He et al., 2022): 40 parts of 11 super-categories, its official json.

    Args:
        root: holds ``SPLIT.json`` and ``SPLIT/SYNSET/*.JPEG``.
        split: ``train``, ``val`` or ``test``.

    Raises:
        FileNotFoundError: if the json is missing.
        ValueError: as :func:`load_parts`, or if there is no such split.
    """
    photos = Path(root) / split

    def place(row: dict[str, Any]) -> Path:
        return photos / row["file_name"][:_SYNSET] / row["file_name"]

    return _load(_split_json(root, split), place, _with_wholes)


def describe_partimagenet(root: str | Path, split: str = "val") -> dict[str, Any]:
    """The metadata of :func:`load_partimagenet`; "Car Side Mirror" becomes "Car:Side Mirror"."""
    return _describe(_split_json(root, split), _with_wholes)


def _paco_json(root: str | Path, split: str) -> Path:
    check_choice("split", split, _SPLITS, Path(root))
    return Path(root) / "annotations" / f"paco_lvis_v1_{split}.json"


def _split_json(root: str | Path, split: str) -> Path:
    check_choice("split", split, _SPLITS, Path(root))
    return Path(root) / f"{split}.json"


def _with_wholes(category: dict[str, Any]) -> dict[str, Any]:
    """A category of PartImageNet, called by its super-category and the rest of its name."""
    whole = category.get("supercategory", "")
    return {**category, "name": f"{whole}:{category['name'].removeprefix(whole).strip()}"}


def _load(
    source: Path, place: Callable[[dict[str, Any]], Path], rename: Rename | None = None
) -> RegionRecords:
    _categories(source, rename)
    return load_objects(source, place, "train" in source.stem, leave_out_undrawn=True)


def _describe(source: Path, rename: Rename | None = None) -> dict[str, Any]:
    categories = _categories(source, rename)
    is_part = [":" in row["name"] for row in categories]
    groups = {
        "AP parts": [i for i, part in enumerate(is_part) if part],
        "AP wholes": [i for i, part in enumerate(is_part) if not part],
    }
    known = {metric: classes for metric, classes in groups.items() if classes}
    return {**class_metadata(source, categories), "is_part": is_part, "category_groups": known}


def _categories(source: Path, rename: Rename | None) -> Sequence[dict[str, Any]]:
    """Categories by rising ``id``, wholes and parts that fit together."""
    categories = read_categories(source)
    if rename is not None:
        categories = [rename(row) for row in categories]
    wholes = {row["name"] for row in categories if ":" not in row["name"]}
    if len(wholes) == len(categories):
        raise ValueError(f"'{source}': no category is called 'whole:part'")
    for row in categories:
        whole, colon, part = row["name"].partition(":")
        if (colon or row.get("supercategory") == "PART") and not (whole and part):
            raise ValueError(
                f"'{source}': category {row['id']} is a part, but called '{row['name']}', not "
                "'whole:part'"
            )
        if wholes and whole not in wholes:
            raise ValueError(
                f"'{source}': category {row['id']} '{row['name']}' is a part of '{whole}', which "
                "is no category"
            )
    return categories
