"""Results as a COCO json, for tools in which people review them, and back again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from semsam.data.records import BadRecordError, blame
from semsam.data.run_length import to_coco_code
from semsam.utils.file_io import write_json

from .output import read_results
from .records import RESULT_SUFFIX

#: A reviewed mask is one of the results' if their IoU is at least this.
MIN_IOU = 0.5


def export_coco(
    results: str | Path,
    path: str | Path,
    field: str = "class_name",
    polygons: bool = False,
) -> int:
    """Write a folder of results as one COCO json of instances.

    CVAT and FiftyOne read masks as run-length codes; Label Studio needs polygons. What has a box
    and no mask has an empty ``segmentation``.

    Args:
        results: as ``AnnotationEngine.run`` leaves it.
        path: the json. Its ``file_name`` are relative to the folder of images.
        field: holds the names, which become categories in alphabetical order; a mask without one
            is left out.
        polygons: write outlines instead of run-length codes; holes are filled.

    Returns:
        The number of annotations.

    Raises:
        FileNotFoundError: if there are no results.
        ValueError: if a result is damaged, or no mask has such a field.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for line, result in read_results(results):
        size = {key: line[key] for key in ("height", "width")}
        images.append({"id": len(images) + 1, "file_name": line["file_name"], **size})
        for region in result["annotations"]:
            name = region.get(field)
            place = _place(region, polygons)
            if name is None or place is None:
                continue
            annotation = {"id": len(annotations) + 1, "image_id": len(images), "category": name}
            annotations.append({**annotation, **place, "iscrowd": 0})
    if not annotations:
        raise ValueError(f"no mask in '{results}' has a '{field}'")
    names = sorted({annotation["category"] for annotation in annotations})
    ids = {name: number for number, name in enumerate(names, 1)}
    for annotation in annotations:
        annotation["category_id"] = ids[annotation.pop("category")]
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_json(path, content, indent=None)
    return len(annotations)


def import_coco(
    reviewed: str | Path, results: str | Path, output: str | Path, field: str = "class_name"
) -> dict[str, int]:
    """Write results as people have corrected them.

    Tools give masks new numbers and other coordinates, so a reviewed mask is told by its place: it
    is that mask of the results with which it has the greatest IoU. It keeps the fields of that one;
    its name is the reviewed one, and its outline too where that was changed. Masks that the
    review has not are left out, further ones are added. Photos that it does not list are not
    written.

    Args:
        reviewed: COCO json of instances; ``file_name`` as ``export_coco`` wrote them, whatever
            folder a tool has put before.
        results: the folder that was exported.
        output: folder for the corrected results.
        field: holds the names.

    Returns:
        How many masks were ``kept``, ``renamed``, ``reshaped`` (perhaps renamed too), ``added`` and
        ``removed``.

    Raises:
        ValueError: if ``output`` is the folder of the results.
        BadRecordError: if the json is damaged, or lists a photo twice or one that has no result.
        FileNotFoundError: if it or the results are missing.
    """
    if Path(output).resolve() == Path(results).resolve():
        raise ValueError(f"'{output}' holds the results themselves: name another folder")
    with blame(str(reviewed)):
        content = json.loads(Path(reviewed).read_bytes())
        names = {category["id"]: category["name"] for category in content["categories"]}
        by_id = {image["id"]: image["file_name"] for image in content["images"]}
        photos: dict[str, list[dict[str, Any]]] = {name: [] for name in by_id.values()}
        if len(photos) < len(content["images"]):
            raise ValueError("it lists an image twice")
        for annotation in content["annotations"]:
            annotation["name"] = names[annotation["category_id"]]
            photos[by_id[annotation["image_id"]]].append(annotation)
    counts = dict.fromkeys(("kept", "renamed", "reshaped", "added", "removed"), 0)
    called: dict[str, list[str]] = {}
    for name in photos:
        called.setdefault(Path(name).name, []).append(name)
    for line, result in read_results(results):
        candidates = called.get(Path(line["file_name"]).name, [])
        file_name = next((name for name in candidates if _is_same(name, line["file_name"])), None)
        if file_name is None:
            continue
        with blame(f"{reviewed}: {file_name}"):
            size = line["height"], line["width"]
            reviewed_ones = [_Reviewed.parse(a, size) for a in photos.pop(file_name)]
            regions = _corrected(result["annotations"], reviewed_ones, size, field, counts)
        target = Path(output) / f"{line['name']}{RESULT_SUFFIX}"
        write_json(target, {**result, "annotations": regions}, indent=None)
    if photos:
        raise BadRecordError(f"{reviewed}: '{next(iter(photos))}' has no result in '{results}'")
    return counts


@dataclass(frozen=True)
class _Reviewed:
    """A mask or a box as it was reviewed.

    Attributes:
        name: what it is called.
        code: the mask, or the box as one.
        box: x, y, width, height of what is no mask.
    """

    name: str
    code: dict[str, Any]
    box: list[float] | None

    @classmethod
    def parse(cls, annotation: dict[str, Any], size: tuple[int, int]) -> _Reviewed:
        """Read an annotation of a COCO json."""
        box = None if annotation.get("segmentation") else list(map(float, annotation["bbox"]))
        return cls(annotation["name"], _code(annotation, size), box)

    def geometry(self) -> dict[str, Any]:
        """SA-1B's fields of its place."""
        if self.box is not None:
            return {"area": round(self.box[2] * self.box[3], 2), "bbox": self.box}
        return _geometry(self.code)

    def is_as(self, region: dict[str, Any]) -> bool:
        """Whether its outline is that of a region, or what export as polygons makes of it."""
        if self.box is not None:
            return "segmentation" not in region and np.allclose(self.box, region["bbox"], atol=0.5)
        return "segmentation" in region and _is_unchanged(region["segmentation"], self.code)


def _corrected(
    old: list[dict[str, Any]],
    new: Sequence[_Reviewed],
    size: tuple[int, int],
    field: str,
    counts: dict[str, int],
) -> list[dict[str, Any]]:
    """The annotations as reviewed: those that there were, in their order, then new ones."""
    partner = _match([_code(region, size) for region in old], [one.code for one in new])
    regions = []
    for index, region in enumerate(old):
        if index not in partner:
            counts["removed"] += 1
            continue
        reviewed = new[partner[index]]
        what = "kept" if region.get(field) == reviewed.name else "renamed"
        if not reviewed.is_as(region):
            region, what = {**region, **reviewed.geometry()}, "reshaped"
        counts[what] += 1
        regions.append({**region, field: reviewed.name})
    matched = set(partner.values())
    for index, reviewed in enumerate(new):
        if index not in matched:
            counts["added"] += 1
            regions.append({**reviewed.geometry(), field: reviewed.name})
    return regions


def _place(region: dict[str, Any], polygons: bool) -> dict[str, Any] | None:
    """COCO's fields of a region's place; None for a mask without an outline."""
    if "segmentation" not in region:
        box = list(map(float, region["bbox"]))
        return {"segmentation": [], "area": box[2] * box[3], "bbox": box}
    code = region["segmentation"]
    shape = _outline(code) if polygons else code
    if not shape:
        return None
    box = coco_mask.toBbox(code).tolist()
    return {"segmentation": shape, "area": float(coco_mask.area(code)), "bbox": box}


def _code(region: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """A mask's run-length code; that of the box of what has none."""
    if region.get("segmentation"):
        return to_coco_code(region["segmentation"], size)
    x, y, width, height = map(float, region["bbox"])
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return to_coco_code([corners], size)


def _match(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> dict[int, int]:
    """Old index -> new index, the pairs of greatest IoU first."""
    if not old or not new:
        return {}
    ious = np.array(coco_mask.iou(new, old, [0] * len(old)))
    partner: dict[int, int] = {}
    taken: set[int] = set()
    for flat in np.argsort(-ious, axis=None, kind="stable"):
        second, first = map(int, np.unravel_index(flat, ious.shape))
        if ious[second, first] < MIN_IOU:
            break
        if first not in partner and second not in taken:
            partner[first] = second
            taken.add(second)
    return partner


def _is_unchanged(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a reviewed mask is the old one, or what export as polygons makes of it."""
    if old["counts"] == new["counts"]:
        return True
    outline = _outline(old)
    return bool(outline) and to_coco_code(outline, tuple(old["size"]))["counts"] == new["counts"]


def _geometry(code: dict[str, Any]) -> dict[str, Any]:
    """SA-1B's fields of a mask's place; the box goes from the first to the last pixel."""
    x, y, width, height = map(int, coco_mask.toBbox(code))
    box = [x, y, max(0, width - 1), max(0, height - 1)]
    return {"segmentation": code, "area": int(coco_mask.area(code)), "bbox": box}


def _outline(code: dict[str, Any]) -> list[list[float]]:
    """Polygons around the parts of a mask, along the outer edges of its pixels."""
    x, y, width, height = map(int, coco_mask.toBbox(code))
    if not width:
        return []
    window = coco_mask.decode(code)[y : y + height, x : x + width]
    # OpenCV runs through the middles of pixels; with each pixel doubled those of its first half
    # have odd numbers behind the border, those of its second even ones: halved, its two edges.
    doubled = np.pad(window.repeat(2, axis=0).repeat(2, axis=1), 1)
    found, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [(points[:, 0] // 2 + (x, y)).astype(float).ravel().tolist() for points in found]


def _is_same(name: str, file_name: str) -> bool:
    return name == file_name or name.endswith(f"/{file_name}")
