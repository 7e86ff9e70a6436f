"""RefCOCO, RefCOCO+ and RefCOCOg: objects of COCO and the expressions that refer to them.

Yu et al., "Modeling Context in Referring Expressions", 2016; Mao et al., "Generation and
Comprehension of Unambiguous Object Descriptions", 2016.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from semsam.data.datasets.regions import (
    RegionRecords,
    check_choice,
    collect_regions,
    corners,
    index_images,
    read_json,
    require,
)


def load_refcoco(
    root: str | Path, split: str = "val", by: str = "unc", images: str = ""
) -> RegionRecords:
    """Records of a split; a region is one ``ref``, its phrases are all sentences of it.

    Args:
        root: folder of one of the three datasets, with ``instances.json`` and ``refs(BY).p``.
        split: ``train``, ``val``, ``test``, ``testA`` or ``testB``, as far as the dataset has it.
        by: who made the splits: ``unc``, ``google`` or ``umd``.
        images: folder of COCO's ``train2014`` photos; ``train2014`` beside ``root`` if "".

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if there is no such split, a file is damaged, or no region can be used.
    """
    root = Path(root)
    require(root)
    folder = Path(images) if images else root.parent / "train2014"
    ref_file, instance_file = root / f"refs({by}).p", root / "instances.json"
    if not ref_file.is_file():
        found = ", ".join(sorted(path.name for path in root.glob("refs(*).p"))) or "none"
        raise FileNotFoundError(f"'{ref_file}' is missing; splits in that folder: {found}")
    content = read_json(instance_file, "images", "annotations")
    photos = index_images(
        instance_file, content["images"], lambda row: (row["id"], folder / row["file_name"])
    )
    refs = load_plain_pickle(ref_file)
    if not isinstance(refs, list) or not all(isinstance(r, dict) and "split" in r for r in refs):
        raise ValueError(f"'{ref_file}' is not a list of references with a 'split'")
    check_choice("split", split, sorted({ref["split"] for ref in refs}), ref_file)
    objects = {row["id"]: row for row in content["annotations"]}

    def parse(ref: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        row = objects[ref["ann_id"]]
        region = {
            "region_id": ref["ref_id"],
            "bbox": corners(*row["bbox"]),
            "phrases": [sentence["sent"] for sentence in ref["sentences"]],
        }
        if "segmentation" in row:
            region["segmentation"] = row["segmentation"]
        return ref["image_id"], region

    return collect_regions(ref_file, photos, (r for r in refs if r["split"] == split), parse)


#: What unpickling damaged bytes raises.
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
)


class _PlainUnpickler(pickle.Unpickler):
    """Builds lists, dicts, texts and numbers, and calls nothing that a pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse: plain values need no class."""
        raise pickle.UnpicklingError(f"it names '{module}.{name}'; only plain values are admitted")


def load_plain_pickle(path: Path) -> Any:
    """Read a pickle of builtin containers, texts and numbers, of Python 2 or 3.

    Raises:
        ValueError: if it is damaged, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="utf-8").load()
    except _DAMAGE as error:
        raise ValueError(f"'{path}' cannot be read: {error}") from error
