"""Class names of the datasets on which semantic segmenters are trained.

The tables are those of Semantic-Segment-Anything: Cityscapes' 19 training ids, ADE20K's 150 short
names, COCO's 133 panoptic classes in the order of their contiguous ids; and CamVid's 11. A name has
no blank at its ends, whereas the original's ADE20K table says "bed ".
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from semsam.utils.registry import nearest_name

_FILE = Path(__file__).with_suffix(".json")
#: COCO's names of stuff that read as words of a sentence; floor-wood, wall-brick, wall-stone,
#: wall-tile and window-blind keep what tells them from the others.
_COCO_REFINED = {
    "door-stuff": "door",
    "mirror-stuff": "mirror",
    "wall-wood": "wall",
    "water-other": "water",
    "window-other": "window",
}


@cache
def _tables() -> dict[str, list[str]]:
    tables: dict[str, list[str]] = json.loads(_FILE.read_text(encoding="utf-8"))
    tables["coco_panoptic_refined"] = [_refine(name) for name in tables["coco_panoptic"]]
    # Things come first.
    tables["coco"] = tables["coco_panoptic"][:80]
    tables["foggy_driving"] = tables["cityscapes"]
    return tables


def _refine(name: str) -> str:
    return _COCO_REFINED.get(name, name.removesuffix("-merged").removesuffix("-other"))


def label_map(name: str) -> dict[int, str]:
    """Class id -> class name.

    Args:
        name: ``ade20k``, ``camvid``, ``cityscapes``, ``coco`` (the 80 things), ``coco_panoptic``,
            ``coco_panoptic_refined`` (``sky`` for ``sky-other-merged``), ``foggy_driving``; or a
            json file with a list of names, or a dict from id to name.

    Raises:
        ValueError: if there is no such table, or the file holds anything else.
        FileNotFoundError: if there is no such file.
    """
    if name.endswith(".json"):
        return _read(Path(name))
    if name not in _tables():
        known = sorted(_tables())
        raise ValueError(
            f"no label map '{name}'{nearest_name(name, known)}; known: {', '.join(known)}; "
            f"or a .json file"
        )
    return dict(enumerate(_tables()[name]))


def _read(path: Path) -> dict[int, str]:
    if not path.is_file():
        raise FileNotFoundError(f"label map '{path}' does not exist")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        items = content.items() if isinstance(content, dict) else enumerate(content)
        names = {int(key): value for key, value in items}
    except (ValueError, TypeError) as error:
        raise ValueError(f"label map '{path}': {error}") from error
    if not names or not all(isinstance(value, str) and value for value in names.values()):
        raise ValueError(f"label map '{path}' is not a list of names, or a dict from id to name")
    return names
