"""Where the masks of photos come from: files beside them, or a model."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semsam.config import CfgNode, configurable
from semsam.data.datasets.sa1b import split_json
from semsam.data.datasets.shard_list import MANIFEST as SHARDS_NAME
from semsam.data.datasets.tsv import TsvRow
from semsam.data.records import BadRecordError, LazyImage, blame
from semsam.data.run_length import RunLengthMasks, to_coco_code

from .build import MASK_SOURCE
from .records import MANIFEST_NAME, RESULT_SUFFIX, MaskedPhoto

#: The image of a json is the first of these that lies beside it.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tiff")
_RESULT_STEM = RESULT_SUFFIX.removesuffix(".json")


@dataclass(frozen=True, slots=True)
class Item:
    """A photo that is to be annotated, before anything of it is read.

    Attributes:
        name: path within the folder of images, without its suffix; results are called so.
        image: the photo's file, or its row in a shard; None if it is missing.
        masks: the file of its masks, or their row, where they have one of their own.
    """

    name: str
    image: Path | TsvRow | None
    masks: Path | TsvRow | None = None

    @property
    def file_name(self) -> str:
        """Path within the folder of images; of a row ``NAME.jpg``, whatever its image is."""
        suffix = self.image.suffix if isinstance(self.image, Path) else ".jpg"
        return f"{self.name}{suffix}"

    def file_sizes(self) -> list[int]:
        """Bytes of its files or rows, by which a changed input is told; -1 for a missing file."""
        return [_num_bytes(place) for place in (self.image, self.masks) if place is not None]


class MaskSource:
    """Photos with masks. ``items`` lists them, ``load`` reads one and finds its masks.

    ``load`` has two steps, so that files are read by threads while models are at work.
    """

    def items(self) -> Sequence[Item]:
        """All photos, ordered by their names, which differ: the same on every machine.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if two have one name.
        """
        raise NotImplementedError

    def read(self, item: Item) -> MaskedPhoto:
        """What files say of a photo; called from any thread.

        Raises:
            BadRecordError: if a file is missing or damaged, or does not fit the photo.
        """
        raise NotImplementedError

    def find_masks(self, photos: Sequence[MaskedPhoto]) -> list[MaskedPhoto]:
        """What takes a model: called after ``read``, from one thread, with a group of photos.

        Where it fails it is called again photo by photo.

        Returns:
            The photos with their annotations, in their order.
        """
        return list(photos)

    def load(self, item: Item) -> MaskedPhoto:
        """A photo with its masks.

        Raises:
            BadRecordError: as ``read``.
        """
        return self.find_masks([self.read(item)])[0]

    def count_masks(self) -> int | None:
        """Masks of all items, where that is known without reading every file."""
        return None


class ImageFiles(MaskSource):
    """The images of a folder and of the folders in it, or one image, without masks.

    Pictures that lie among results (``NAME_semantic.png``) and hidden files are no input.

    Args:
        images: a folder, or an image.
    """

    def __init__(self, images: str | Path) -> None:
        self.images = Path(images)

    def items(self) -> list[Item]:
        """See ``MaskSource``."""
        if not self.images.is_dir():
            check_exists(self.images)
            return [Item(self.images.stem, self.images)]
        paths = [path for path in _files(self.images) if path.suffix.lower() in IMAGE_SUFFIXES]
        found = [Item(_name(path, self.images), path) for path in paths]
        if not found:
            raise FileNotFoundError(
                f"no image in '{self.images}', and no index of TSV shards; images are "
                f"{', '.join(IMAGE_SUFFIXES)}"
            )
        return sort_items(found)

    def read(self, item: Item) -> MaskedPhoto:
        """See ``MaskSource``."""
        return MaskedPhoto(item.name, read_image(item), [])


@MASK_SOURCE.register
class Sa1bMasks(MaskSource):
    """Masks of SA-1B's json files, each beside its image.

    A json is ``{"image": ..., "annotations": [...]}`` or the bare list. ``area`` and ``bbox`` are
    filled in where they are missing, and counts that are a list are compressed.

    Args:
        images: a folder, which is searched with all folders in it; or an image or json file.
    """

    @configurable
    def __init__(self, images: str | Path) -> None:
        self.images = Path(images)

    @classmethod
    def from_config(cls, cfg: CfgNode, images: str | Path) -> dict[str, Any]:
        """Translate the configuration."""
        return {"images": images}

    def items(self) -> list[Item]:
        """See ``MaskSource``; a json without an image is an item without one."""
        if not self.images.is_dir():
            check_exists(self.images)
            masks = self.images.with_suffix(".json")
            if self.images.suffix.lower() != ".json":
                return [Item(masks.stem, self.images, masks)]
            return [Item(masks.stem, _image_beside(masks, set(masks.parent.iterdir())), masks)]
        files = set(_files(self.images))
        masks_files = {f for f in files if f.suffix == ".json" and f.name != MANIFEST_NAME}
        if masks_files <= {self.images / SHARDS_NAME}:
            raise FileNotFoundError(
                f"no json with masks in '{self.images}'; ANNOTATION.MASKS.NAME TsvMasks reads "
                "those of TSV shards, GeneratedMasks or TransformersMasks find masks of images "
                "that have none"
            )
        return sort_items(
            [Item(_name(f, self.images), _image_beside(f, files), f) for f in masks_files]
        )

    def read(self, item: Item) -> MaskedPhoto:
        """See ``MaskSource``."""
        assert isinstance(item.masks, Path)
        with blame(str(item.masks)):
            annotations, fields = split_json(item.masks.read_bytes())
        image = read_image(item)
        with blame(str(item.masks)):
            return MaskedPhoto(item.name, image, check_annotations(annotations, image), fields)


@MASK_SOURCE.register
class CocoMasks(MaskSource):
    """The annotations of images in a COCO json, whatever tool wrote it.

    Polygons become run-length codes; all other fields are kept. An image without an annotation is
    an item without masks.

    Args:
        images: the folder that the json's ``file_name`` refer to, or one image that is in it.
        annotations: the json.

    Raises:
        FileNotFoundError: if there is no such json.
        BadRecordError: if it cannot be read.
    """

    @configurable
    def __init__(self, images: str | Path, annotations: str | Path) -> None:
        self.images = Path(images)
        check_exists(Path(annotations))
        with blame(str(annotations)):
            content = json.loads(Path(annotations).read_bytes())
            records = {image["id"]: image for image in content["images"]}
            self._records = {_stem(image["file_name"]): image for image in records.values()}
            outside = [n for n in self._records if Path(n).is_absolute() or ".." in Path(n).parts]
            if outside:
                raise ValueError(f"image '{outside[0]}' would lie outside of the folder")
            if len(self._records) != len(content["images"]):
                raise ValueError("two images have one id, or names that differ in the suffix only")
            self._annotations: dict[str, list[dict[str, Any]]] = {n: [] for n in self._records}
            for annotation in content["annotations"]:
                name = _stem(records[annotation["image_id"]]["file_name"])
                self._annotations[name].append(annotation)

    @classmethod
    def from_config(cls, cfg: CfgNode, images: str | Path) -> dict[str, Any]:
        """Translate the configuration."""
        return {"images": images, "annotations": cfg.ANNOTATION.MASKS.ANNOTATIONS}

    def items(self) -> list[Item]:
        """See ``MaskSource``."""
        records = self._records
        if not self.images.is_dir():
            check_exists(self.images)
            wanted = self.images.name
            name = next(
                (n for n, r in records.items() if Path(r["file_name"]).name == wanted), None
            )
            if name is None:
                raise FileNotFoundError(f"the annotations have no image '{wanted}'")
            return [Item(name, self.images)]
        if not records:
            raise FileNotFoundError("the annotations list no image")
        return sort_items([Item(n, self.images / r["file_name"]) for n, r in records.items()])

    def read(self, item: Item) -> MaskedPhoto:
        """See ``MaskSource``."""
        image = read_image(item)
        height, width = image.shape[:2]
        with blame(item.name):
            annotations = [dict(annotation) for annotation in self._annotations[item.name]]
            for annotation in annotations:
                with blame(f"{item.name}: annotation {annotation.get('id')}"):
                    code = to_coco_code(annotation["segmentation"], (height, width))
                annotation["segmentation"] = code
            fields = {"image": self._records[item.name]}
            return MaskedPhoto(item.name, image, check_annotations(annotations, image), fields)

    def count_masks(self) -> int:
        """See ``MaskSource``."""
        return sum(len(self._annotations[item.name]) for item in self.items())


def read_image(item: Item) -> np.ndarray:
    """The image of an item that is a file: (H, W, 3) uint8 RGB, upright.

    Raises:
        BadRecordError: if it is missing or damaged.
    """
    if item.image is None:
        raise BadRecordError(
            f"{item.masks}: no image of this name lies beside it ({', '.join(IMAGE_SUFFIXES)})"
        )
    return np.array(LazyImage({"file_name": str(item.image)}).decode())


def check_annotations(annotations: Any, image: np.ndarray) -> list[dict[str, Any]]:
    """SA-1B's annotations of a photo, usable by labellers.

    Args:
        annotations: a list of dicts with ``segmentation``.
        image: (H, W, 3) that they are of.

    Returns:
        Copies, with ``area`` and ``bbox`` where they had none, and counts as text.

    Raises:
        TypeError, KeyError, ValueError: if one is no such dict, a mask is damaged or of another
            size than the photo, or a box is not four finite numbers.
    """
    if not isinstance(annotations, list) or not all(isinstance(a, dict) for a in annotations):
        raise TypeError("'annotations' is not a list of objects")
    height, width = image.shape[:2]
    masks = RunLengthMasks.from_coco([a["segmentation"] for a in annotations], (height, width))
    checked = []
    for index, (annotation, box, area) in enumerate(
        zip(annotations, masks.boxes.tolist(), masks.areas.tolist(), strict=True)
    ):
        code = annotation["segmentation"]
        if isinstance(code["counts"], list):
            code = to_coco_code(code, (height, width))
        x0, y0, x1, y1 = map(int, box)
        # As in segment-anything: from the first to the last pixel.
        filled = {"area": area, "bbox": [x0, y0, max(0, x1 - x0 - 1), max(0, y1 - y0 - 1)]}
        missing = {key: value for key, value in filled.items() if key not in annotation}
        annotation = {**annotation, "segmentation": code, **missing}
        box = annotation["bbox"]
        if len(box) != 4 or not all(math.isfinite(value) for value in box):
            raise ValueError(f"annotation {index}: 'bbox' is {box}, not four finite numbers")
        checked.append(annotation)
    return checked


def sort_items(items: list[Item]) -> list[Item]:
    """Items in the order of their names.

    Raises:
        ValueError: if two have one name.
    """
    ordered = sorted(items, key=lambda item: item.name)
    for first, second in itertools.pairwise(ordered):
        if first.name == second.name:
            raise ValueError(
                f"'{first.image}' and '{second.image}' would have one result, called "
                f"'{first.name}': rename one"
            )
    return ordered


def check_exists(path: Path) -> None:
    """Raise a FileNotFoundError if there is no such file or folder."""
    if not path.exists():
        raise FileNotFoundError(f"'{path}' does not exist")


def _num_bytes(place: Path | TsvRow) -> int:
    if isinstance(place, TsvRow):
        return place.num_bytes
    return place.stat().st_size if place.exists() else -1


def _files(folder: Path) -> Iterator[Path]:
    """Files under a folder that may be input: neither hidden nor a result."""
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and not Path(name).stem.endswith(_RESULT_STEM):
                yield Path(root, name)


def _image_beside(masks: Path, files: set[Path]) -> Path | None:
    candidates = [masks.with_suffix(suffix) for suffix in IMAGE_SUFFIXES]
    candidates += [masks.with_suffix(suffix.upper()) for suffix in IMAGE_SUFFIXES]
    return next((path for path in candidates if path in files), None)


def _name(path: Path, folder: Path) -> str:
    return _stem(path.relative_to(folder).as_posix())


def _stem(file_name: str) -> str:
    return str(Path(file_name).with_suffix("").as_posix())
