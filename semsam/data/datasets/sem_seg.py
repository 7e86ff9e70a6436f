"""Photos with a class for every pixel: CamVid, ADE20K, Cityscapes and Foggy Driving.

A record has ``file_name``, ``image_id`` (the photo's path in its split, without the suffix) and
``sem_seg_file_name``, a png of labels (``semsam.data.records.decode_labels``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semsam.data.datasets.regions import check_choice, require

_PHOTO = "_leftImg8bit.png"
_TRUTH = "_gtFine_labelTrainIds.png"


def load_camvid(root: str | Path, split: str = "test") -> list[dict[str, Any]]:
    """CamVid in SegNet's form: 480x360, 11 classes, 11 for nothing.

    Args:
        root: holds ``SPLIT/*.jpg`` (or png) and ``SPLITannot/*.png``.
        split: ``train``, ``val`` or ``test``.

    Raises:
        FileNotFoundError: if there is no photo, or one has no labels.
        ValueError: if there is no such split.
    """
    root = Path(root)
    check_choice("split", split, ["train", "val", "test"], root)
    photos = [*root.glob(f"{split}/*.jpg"), *root.glob(f"{split}/*.png")]
    return _records(
        root / split, {path: root / f"{split}annot" / f"{path.stem}.png" for path in photos}
    )


def load_ade20k(root: str | Path, split: str = "validation") -> list[dict[str, Any]]:
    """ADE20K of the scene parsing challenge: 150 classes from 1, 0 for nothing.

    Args:
        root: holds ``images/SPLIT/*.jpg`` and ``annotations/SPLIT/*.png``.
        split: ``training`` or ``validation``.

    Raises:
        FileNotFoundError: if there is no photo, or one has no labels.
        ValueError: if there is no such split.
    """
    root = Path(root)
    check_choice("split", split, ["training", "validation"], root)
    truth = root / "annotations" / split
    folder = root / "images" / split
    records = _records(folder, {path: truth / f"{path.stem}.png" for path in folder.glob("*.jpg")})
    return [{**record, "reduce_zero_label": True} for record in records]


def load_cityscapes(root: str | Path, split: str = "val") -> list[dict[str, Any]]:
    """Cityscapes, or Foggy Driving, which has its layout: 19 training ids, 255 for nothing.

    Args:
        root: holds ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` and
            ``gtFine/SPLIT/CITY/*_gtFine_labelTrainIds.png``.
        split: a folder of ``leftImg8bit``.

    Raises:
        FileNotFoundError: if there is no photo, or one has no labels.
        ValueError: if there is no such split.
    """
    root = Path(root)
    require(root / "leftImg8bit")
    splits = sorted(path.name for path in (root / "leftImg8bit").iterdir() if path.is_dir())
    check_choice("split", split, splits, root)
    folder, truth = root / "leftImg8bit" / split, root / "gtFine" / split
    pairs = {}
    for path in folder.glob(f"*/*{_PHOTO}"):
        pairs[path] = truth / path.parent.name / (path.name.removesuffix(_PHOTO) + _TRUTH)
    return _records(folder, pairs)


def load_foggy_driving(root: str | Path, split: str = "test") -> list[dict[str, Any]]:
    """Foggy Driving; as :func:`load_cityscapes`, with ``public`` and ``pedestrian`` for cities."""
    return load_cityscapes(root, split)


def _records(folder: Path, pairs: dict[Path, Path]) -> list[dict[str, Any]]:
    """Records in the order of the photos' paths.

    Args:
        folder: of the photos.
        pairs: labels of each photo.
    """
    require(folder)
    if not pairs:
        raise FileNotFoundError(f"there is no photo in '{folder}'")
    records = []
    for photo in sorted(pairs):
        if not pairs[photo].is_file():
            raise FileNotFoundError(f"'{photo}' has no labels: '{pairs[photo]}' is missing")
        name = photo.relative_to(folder).with_suffix("").as_posix()
        records.append(
            {"file_name": str(photo), "image_id": name, "sem_seg_file_name": str(pairs[photo])}
        )
    return records
