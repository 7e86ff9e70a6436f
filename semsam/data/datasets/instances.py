"""Objects with a mask and a class, in COCO's json: COCO, LVIS, SegInW.

A record has ``file_name``, ``image_id``, ``height``, ``width`` and ``annotations``
(``semsam.data.records``), crowds among them. Classes are numbered from 0 by rising ``id`` of the
json's categories. Training splits leave out photos without objects, others keep them; where there
are no splits, a json with ``train`` in its name is one of training.

The metadata of each are detectron2's: ``json_file``, ``thing_classes`` (names) and
``thing_dataset_id_to_contiguous_id``; also ``category_groups``, {metric: class indices} of which
the mean is reported, and ``federated`` where evaluation is LVIS's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from semsam.data.datasets.regions import (
    RegionRecords,
    blame_row,
    check_choice,
    find,
    index_images,
    read_json,
)

#: The 25 datasets of "Segmentation in the Wild", as its folders are called.
SEGINW_NAMES = (
    *("Airplane-Parts", "Bottles", "Brain-Tumor", "Chicken", "Cows", "Electric-Shaver"),
    *("Elephants", "Fruits", "Garbage", "Ginger-Garlic", "Hand", "Hand-Metal", "House-Parts"),
    *("HouseHold-Items", "Nutterfly-Squireel", "Phones", "Poles", "Puppies", "Rail"),
    *("Salmon-Fillet", "Strawberry", "Tablets", "Toolkits", "Trash", "Watermelon"),
)
_FREQUENCIES = {"APr": "r", "APc": "c", "APf": "f"}


def load_coco_instances(root: str | Path, split: str = "val2017") -> RegionRecords:
    """Things of COCO.

    Args:
        root: holds ``annotations/instances_SPLIT.json`` and ``SPLIT/*.jpg``.
        split: ``train2017`` or ``val2017``.

    Raises:
        FileNotFoundError: if the json is missing.
        ValueError: if it is damaged.
    """
    images = Path(root) / split
    return load_objects(
        _coco_json(root, split), lambda row: images / row["file_name"], "train" in split
    )


def describe_coco_instances(root: str | Path, split: str = "val2017") -> dict[str, Any]:
    """The metadata of :func:`load_coco_instances`."""
    return _describe(_coco_json(root, split))


def load_coco_json(json_file: str | Path, images: str | None = None) -> RegionRecords:
    """Any objects in COCO's json.

    Args:
        json_file: with ``images``, ``annotations`` and ``categories``.
        images: folder of the photos, to which the json's ``file_name`` are relative; that of the
            json if None.

    Raises:
        FileNotFoundError: if the json is missing.
        ValueError: if it is damaged.
    """
    source = Path(json_file)
    folder = source.parent if images is None else Path(images)
    return load_objects(source, lambda row: folder / row["file_name"], "train" in source.stem)


def describe_coco_json(json_file: str | Path, images: str | None = None) -> dict[str, Any]:
    """The metadata of :func:`load_coco_json`."""
    return _describe(Path(json_file))


def load_lvis(root: str | Path, split: str = "v1_val", images: str | None = None) -> RegionRecords:
    """LVIS (Gupta et al., 2019), on the photos of COCO.

    Args:
        root: holds ``lvis_SPLIT.json``.
        split: ``v1_train``, ``v1_val``, or ``v1_minival``, the 5,000 photos of COCO's ``val2017``.
        images: folder of COCO's ``train2017`` and ``val2017``; ``coco`` beside ``root`` if None.

    Raises:
        FileNotFoundError: if the json is missing.
        ValueError: if it is damaged.
    """
    folder = Path(root).parent / "coco" if images is None else Path(images)

    def place(row: dict[str, Any]) -> Path:
        # An image's url ends with the folder of COCO, its file name does not have it.
        name = row["coco_url"] if "coco_url" in row else row["file_name"]
        return folder.joinpath(*PurePosixPath(name).parts[-2:])

    return load_objects(_lvis_json(root, split), place, "train" in split)


def describe_lvis(
    root: str | Path, split: str = "v1_val", images: str | None = None
) -> dict[str, Any]:
    """The metadata of :func:`load_lvis`, with groups of rare, common and frequent classes.

    Raises:
        FileNotFoundError: if the json is missing.
        ValueError: if it is damaged, or does not say how frequent a class is.
    """
    source = _lvis_json(root, split)
    categories = read_categories(source)
    for category in categories:
        if category.get("frequency") not in _FREQUENCIES.values():
            raise ValueError(f"'{source}': category {category['id']} has no 'frequency' r, c or f")
    groups = {
        metric: [i for i, row in enumerate(categories) if row["frequency"] == frequency]
        for metric, frequency in _FREQUENCIES.items()
    }
    return {**class_metadata(source, categories), "category_groups": groups}


def load_seginw(folder: str | Path, split: str = "valid") -> RegionRecords:
    """One of the 25 datasets of Segmentation in the Wild (Zou et al., 2022).

    Args:
        folder: holds ``SPLIT/_annotations_min1cat.coco.json`` and, beside it, the photos.
        split: ``valid``, ``train``, or another folder such as ``train_10shot``.

    Raises:
        FileNotFoundError: if the json is missing.
        ValueError: if it is damaged, or its classes are not numbered from 0 on.
    """
    source = _seginw_json(folder, split)
    _seginw_categories(source)
    return load_objects(source, lambda row: source.parent / row["file_name"], "train" in split)


def describe_seginw(folder: str | Path, split: str = "valid") -> dict[str, Any]:
    """The metadata of :func:`load_seginw`; ``prediction_file`` is that of a submission."""
    source = _seginw_json(folder, split)
    kind = "val" if split == "valid" else split
    return {
        **class_metadata(source, _seginw_categories(source)),
        "prediction_file": f"seginw_{Path(folder).name}_{kind}.json",
    }


def _coco_json(root: str | Path, split: str) -> Path:
    return Path(root) / "annotations" / f"instances_{split}.json"


def _lvis_json(root: str | Path, split: str) -> Path:
    check_choice("split", split, ("v1_train", "v1_val", "v1_minival"), Path(root))
    return Path(root) / f"lvis_{split}.json"


def _seginw_json(folder: str | Path, split: str) -> Path:
    return Path(folder) / split / "_annotations_min1cat.coco.json"


def _seginw_categories(source: Path) -> list[dict[str, Any]]:
    """The categories; submissions number them from 0 on, as the json has to do."""
    categories = read_categories(source)
    numbers = [category["id"] for category in categories]
    if numbers != list(range(len(numbers))):
        raise ValueError(
            f"'{source}': categories are {numbers}, not 0 to {len(numbers) - 1}; the file of the "
            "benchmark has no entry for the super-category"
        )
    return categories


def read_categories(source: Path, content: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The categories of a COCO-style json by rising ``id``.

    Args:
        source: the json.
        content: of it; read if None.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it is damaged; names the row.
    """
    content = read_json(source, "categories") if content is None else content
    for number, row in enumerate(content["categories"]):
        if not isinstance(row, dict) or not {"id", "name"} <= row.keys():
            raise ValueError(f"'{source}': category {number} of the list has no 'id' or no 'name'")
    return sorted(content["categories"], key=lambda row: row["id"])


def _describe(source: Path) -> dict[str, Any]:
    return class_metadata(source, read_categories(source))


def class_metadata(source: Path, categories: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The metadata that every dataset of objects has.

    Args:
        source: the json.
        categories: of it, by rising ``id``.
    """
    return {
        "json_file": str(source),
        "thing_classes": [category["name"] for category in categories],
        "thing_dataset_id_to_contiguous_id": {c["id"]: i for i, c in enumerate(categories)},
    }


def load_objects(
    source: Path,
    place: Callable[[dict[str, Any]], Path],
    leave_out_empty: bool,
    leave_out_undrawn: bool = False,
) -> RegionRecords:
    """Records of a COCO-style json.

    Args:
        source: the json.
        place: row of an image -> where it lies.
        leave_out_empty: leave out images without an object that is no crowd.
        leave_out_undrawn: leave out polygons of fewer than three corners, and objects of which
            there is nothing else.

    Raises:
        FileNotFoundError: if the json is missing.
        ValueError: if it is damaged; names the row.
    """
    content = read_json(source, "images", "annotations", "categories")
    images = index_images(source, content["images"], lambda row: (row["id"], place(row)))
    classes = {c["id"]: i for i, c in enumerate(read_categories(source, content))}
    objects: dict[Any, list[dict[str, Any]]] = {image_id: [] for image_id in images}
    for number, row in enumerate(content["annotations"]):
        with blame_row(source, "annotation", number):
            segmentation = row["segmentation"]
            if leave_out_undrawn and isinstance(segmentation, list):
                segmentation = [polygon for polygon in segmentation if len(polygon) >= 6]
            annotation = {
                "segmentation": segmentation,
                "category_id": find(classes, row["category_id"], "category"),
                "iscrowd": int(row.get("iscrowd", 0)),
            }
            its_image = find(objects, row["image_id"], "image")
        if segmentation or not leave_out_undrawn:
            its_image.append(annotation)
    return RegionRecords(
        {**images[image_id], "image_id": image_id, "annotations": found}
        for image_id, found in objects.items()
        if not leave_out_empty or any(not item["iscrowd"] for item in found)
    )
