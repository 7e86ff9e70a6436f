"""SA-1B: as folders of jpg and json, as tar files of them, and as TSV shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from semsam.data.datasets.tar import TarRecords
from semsam.data.datasets.tsv import TsvRecords
from semsam.data.records import blame

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


class Sa1bFolder:
    """Records of a folder, and the folders in it, of images with a json of the same name beside.

    Args:
        folder: where the images lie.

    Raises:
        FileNotFoundError: if the folder or an image's json is missing, or there is no image.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"folder '{self.folder}' does not exist")
        files = {path for path in self.folder.rglob("*") if path.is_file()}
        self.images = sorted(f for f in files if f.suffix.lower() in IMAGE_SUFFIXES)
        lonely = [str(image) for image in self.images if image.with_suffix(".json") not in files]
        if lonely:
            raise FileNotFoundError(
                f"{len(lonely)} images have no json beside them: {', '.join(lonely[:5])}"
            )
        if not self.images:
            raise FileNotFoundError(f"no image with a json beside it in '{self.folder}'")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> dict[str, Any]:
        """One record.

        Raises:
            BadRecordError: if the json cannot be read.
        """
        image = self.images[item]
        with blame(str(image)):
            content = _parse_column(image.with_suffix(".json").read_bytes())
        return {
            "file_name": str(image),
            "image_id": image.relative_to(self.folder).with_suffix("").as_posix(),
            **content,
        }


class Sa1bTar(TarRecords):
    """Records of tar files as SA-1B is distributed, not unpacked: a jpg and a json of one name.

    Args:
        path: a folder of tar files, or one of them.

    Raises:
        FileNotFoundError: if a tar file is missing.
        ValueError: if one is no tar file, or was cut.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, ["json"], _parse_members)


class Sa1bTsv(TsvRecords):
    """Records of TSV shards: name, annotation json, base64 image.

    Arguments and errors are those of ``TsvRecords``.
    """

    @staticmethod
    def parse(text: bytes) -> dict[str, Any]:
        """Keys of the record from the json.

        Raises:
            KeyError, ValueError: if it is not what it should be.
        """
        return _parse_column(text)


def split_json(text: bytes) -> tuple[Any, dict[str, Any]]:
    """The annotations of a SA-1B json, unchecked, and the fields that stand beside them.

    Raises:
        ValueError: if it is not json.
        KeyError: if it is an object without ``annotations``.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        return content, {}
    return content.pop("annotations"), content


def _parse_members(record: dict[str, Any], members: dict[str, bytes]) -> dict[str, Any]:
    return _parse_column(members["json"])


def _parse_column(text: bytes) -> dict[str, Any]:
    """``annotations``, checked, and ``image_info`` if it is there."""
    annotations, fields = split_json(text)
    if not all("segmentation" in annotation for annotation in annotations):
        raise ValueError("an annotation has no 'segmentation'")
    told = {"image_info": fields["image"]} if "image" in fields else {}
    return {"annotations": annotations, **told}
