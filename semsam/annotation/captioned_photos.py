"""Photos with captions: a COCO json of captions, texts beside the photos, or rows of shards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from semsam.data.datasets.regions import read_json
from semsam.data.datasets.tsv import TsvRow
from semsam.data.records import blame

from .mask_sources import Item, MaskSource
from .records import MaskedPhoto
from .shards import open_photos


class CaptionedPhotos(MaskSource):
    """Photos without masks, with ``captions`` among their fields.

    Args:
        images: as ``open_photos`` takes them.
        captions: a json as COCO's captions. If empty, captions are the lines of ``NAME.txt`` beside
            a photo, and of a row in a shard ``captions`` (a list) or ``caption`` in its json. A
            photo that has none gets an empty list.
        max_captions: of a photo, the first ones; 0 for all.

    Raises:
        FileNotFoundError: if there is no such json.
        ValueError: if it is not json, or has no ``images`` or ``annotations``; if the number is
            negative.
        BadRecordError: if one of these is damaged; the message has its number.
    """

    def __init__(
        self, images: str | Path, captions: str | Path = "", max_captions: int = 0
    ) -> None:
        if max_captions < 0:
            raise ValueError(f"max_captions is 0 or more, got {max_captions}")
        self.photos = open_photos(images)
        self._file = str(captions)
        self._captions = _read_coco(Path(captions)) if captions else None
        self._max = max_captions or None

    def items(self) -> Sequence[Item]:
        """See ``MaskSource``.

        Raises:
            ValueError: if the json has no caption of any of the photos, or no photo of a folder
                has a text beside it.
        """
        items = self.photos.items()
        if self._captions is not None:
            if not any(self._captions.get(item.name) for item in items):
                named = [name for name, texts in self._captions.items() if texts]
                such = f"; it has those of {len(named)}, such as '{named[0]}'" if named else ""
                raise ValueError(
                    f"'{self._file}' has no caption of any photo, such as '{items[0].name}'{such}"
                )
            # A changed json is noticed, as a changed text is.
            return [replace(item, masks=Path(self._file)) for item in items]
        items = [_with_text(item) for item in items]
        if not any(item.masks or isinstance(item.image, TsvRow) for item in items):
            raise ValueError(
                f"no photo has a text beside it, such as '{items[0].name}.txt'; "
                "ANNOTATION.DATA_ENGINE.CAPTIONS names a json with captions of many"
            )
        return items

    def read(self, item: Item) -> MaskedPhoto:
        """See ``MaskSource``."""
        photo = self.photos.read(item)
        if self._captions is not None:
            texts: Any = self._captions.get(item.name, [])
        elif isinstance(item.image, TsvRow):
            with blame(str(item.image)):
                texts = _in_row(item.image.read()[1])
        elif isinstance(item.masks, Path):
            with blame(str(item.masks)):
                texts = item.masks.read_text(encoding="utf-8").splitlines()
        else:
            texts = []
        return replace(photo, fields={"captions": _clean(texts)[: self._max]})


def _read_coco(path: Path) -> dict[str, list[str]]:
    """Captions by the photo's name."""
    content = read_json(path, "images", "annotations")
    names: dict[Any, str] = {}
    for number, image in enumerate(content["images"]):
        with blame(f"{path}: image {number}"):
            names[image["id"]] = Path(image["file_name"]).with_suffix("").as_posix()
    captions: dict[str, list[str]] = {name: [] for name in names.values()}
    for number, annotation in enumerate(content["annotations"]):
        with blame(f"{path}: annotation {number}"):
            if annotation["image_id"] not in names:
                raise ValueError(f"image {annotation['image_id']} is not listed")
            captions[names[annotation["image_id"]]] += _clean([_text(annotation["caption"])])
    return captions


def _in_row(column: bytes) -> list[str]:
    content = json.loads(column) if column.strip() else {}
    if not isinstance(content, dict):
        return []
    texts = content.get("captions", content.get("caption", []))
    return [_text(text) for text in ([texts] if isinstance(texts, str) else texts)]


def _with_text(item: Item) -> Item:
    """A file with the text beside it."""
    if isinstance(item.image, Path) and (text := item.image.with_suffix(".txt")).is_file():
        return replace(item, masks=text)
    return item


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a caption is text, not {value!r:.60}")
    return value


def _clean(texts: Sequence[str]) -> list[str]:
    """Captions on one line each, without empty ones."""
    return [text for text in (" ".join(text.split()) for text in texts) if text]
