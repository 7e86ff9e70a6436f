"""SA-1B's layout with a sentence for each mask, as the drawn scenes have: regions to describe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from semsam.data.datasets.sa1b import Sa1bFolder, Sa1bTsv
from semsam.data.records import LazyImage, blame


class Sa1bCaptions:
    """Records of regions from annotations that have a ``caption``; those without are left out.

    Args:
        folder: of images and json files, or of TSV shards.

    Raises:
        FileNotFoundError: if there is neither, or a file is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        shards = any(Path(folder).glob("*.tsv"))
        self._rows = Sa1bTsv(folder) if shards else Sa1bFolder(folder)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, item: int) -> dict[str, Any]:
        """One record; a region's id is its annotation's, else its number.

        Raises:
            BadRecordError: if the image, the json or a mask cannot be read.
        """
        record = self._rows[item]
        height, width = LazyImage(record).size
        with blame(record["file_name"]):
            regions = [
                {
                    "region_id": int(annotation.get("id", number)),
                    "bbox": _corners(annotation["segmentation"]),
                    "phrases": [annotation["caption"]],
                    "segmentation": annotation["segmentation"],
                }
                for number, annotation in enumerate(record["annotations"])
                if "caption" in annotation
            ]
        kept = {key: value for key, value in record.items() if key != "annotations"}
        return {**kept, "height": height, "width": width, "regions": regions}


def _corners(segmentation: dict[str, Any]) -> list[float]:
    """XYXY of a run-length mask."""
    x, y, width, height = np.asarray(coco_mask.toBbox(segmentation), dtype=float)
    return [x, y, x + width, y + height]
