"""What a dataset has: the columns of the tables of datasets in Semantic-SAM's and SCA's papers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from tqdm import tqdm

from semsam.data.catalog import DatasetCatalog, Records
from semsam.data.datasets.rows import masks_as_codes
from semsam.data.records import BadRecordError, LazyImage, blame
from semsam.data.run_length import RunLengthMasks
from semsam.utils.workers import map_in_processes

_ROWS_AT_ONCE = 64
#: A mask lies in a larger one that has this share of its pixels.
_INSIDE = 0.9
#: Histogram -> lower ends of its bins; a value is in the last one that it reaches.
BINS: dict[str, tuple[float, ...]] = {
    "regions an image": (0, 1, 2, 5, 10, 20, 50, 100, 200),
    "area, percent of the image": (0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
    "masks that contain a click": (1, 2, 3, 4, 5, 6),
    "larger masks in which a mask lies": (0, 1, 2, 3, 4, 5),
    "words a caption": (1, 2, 3, 5, 8, 12, 20),
}
#: COCO's limits of the areas that are small and medium, in pixels.
_SMALL, _MEDIUM = 32**2, 96**2


@dataclass
class Stats:
    """Counts of a dataset, or of a part of it, that can be added.

    Attributes:
        counts: images, bad rows, pixels, regions, masks, captions, words, and regions that are
            ``small``, ``medium`` and ``large`` by COCO's limits.
        words: how often each word occurs, in lower case.
        classes: numbers of classes that occur.
        histograms: (B,) counts, by the names of ``BINS``.
    """

    counts: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    classes: set[int] = field(default_factory=set)
    histograms: dict[str, NDArray[np.int64]] = field(
        default_factory=lambda: {name: np.zeros(len(b), dtype=np.int64) for name, b in BINS.items()}
    )

    def add(self, other: Stats) -> None:
        """Take in those of another part."""
        self.counts.update(other.counts)
        self.words.update(other.words)
        self.classes |= other.classes
        for name, counts in other.histograms.items():
            self.histograms[name] += counts

    def count(self, name: str, values: Sequence[float] | NDArray[Any]) -> None:
        """Put values into a histogram."""
        bins = np.searchsorted(BINS[name], np.asarray(values, dtype=np.float64), side="right") - 1
        self.histograms[name] += np.bincount(np.maximum(bins, 0), minlength=len(BINS[name]))

    def table(self) -> list[tuple[str, str]]:
        """The columns of a table, with their values as text."""
        c = self.counts
        rows = [
            ("images", c["images"]),
            ("megapixels an image", _mean(c["pixels"] / 1e6, c["images"])),
            ("regions", c["regions"]),
            ("regions an image", _mean(c["regions"], c["images"])),
            ("masks", c["masks"]),
            ("masks an image", _mean(c["masks"], c["images"])),
            ("small, medium, large", " ".join(f"{c[s]:,}" for s in ("small", "medium", "large"))),
            ("masks that contain a click", self._mean_of("masks that contain a click")),
            ("classes that occur", len(self.classes)),
            ("captions", c["captions"]),
            ("captions a region", _mean(c["captions"], c["regions"])),
            ("words", c["words"]),
            ("words a caption", _mean(c["words"], c["captions"])),
            ("different words", len(self.words)),
            ("rows that cannot be used", c["bad rows"]),
        ]
        return [(name, f"{v:,}" if isinstance(v, int) else str(v)) for name, v in rows]

    def _mean_of(self, name: str) -> str:
        counts = self.histograms[name]
        return _mean(float(counts @ np.array(BINS[name])), int(counts.sum()))


def _mean(total: float, number: int) -> str:
    return f"{total / number:.2f}" if number else "-"


def bin_names(name: str) -> list[str]:
    """What the bins of a histogram are called: ``0.1 - 0.3``, ``30 +``; a number alone."""
    ends = BINS[name]
    whole = all(float(end).is_integer() for end in ends)
    names = []
    for low, high in pairwise(ends):
        last = high - 1 if whole else high
        names.append(f"{low:g}" if last == low else f"{low:g} - {last:g}")
    return [*names, f"{ends[-1]:g} +"]


def collect_stats(name: str, num_workers: int = 1) -> Stats:
    """Count what a dataset has; rows that cannot be used are counted as such.

    Args:
        name: of the dataset in the catalog.
        num_workers: processes.

    Raises:
        ValueError, FileNotFoundError: if the dataset is unknown, damaged or missing.
        RuntimeError: if a worker dies.
    """
    records = DatasetCatalog.get(name)
    total = Stats()
    with tqdm(total=len(records), unit="image", disable=None) as bar:
        starts = range(0, len(records), _ROWS_AT_ONCE)
        for start, part in map_in_processes(partial(_count_rows, records), starts, num_workers):
            total.add(part)
            bar.update(min(_ROWS_AT_ONCE, len(records) - start))
    return total


def _count_rows(records: Records, start: int) -> Stats:
    stats = Stats()
    for row in range(start, min(start + _ROWS_AT_ONCE, len(records))):
        try:
            record = records[row]
            part = _count_record(record)
        except BadRecordError:
            stats.counts["bad rows"] += 1
        else:
            stats.add(part)
    return stats


def _count_record(record: dict[str, Any]) -> Stats:
    stats = Stats()
    height, width = size = LazyImage(record).size
    with blame(record["file_name"]):
        (items,) = masks_as_codes(record, size).values()
        items = [item for item in items if not item.get("iscrowd", 0)]
        drawn = [item["segmentation"] for item in items if "segmentation" in item]
        masks = RunLengthMasks.from_coco(drawn, size)
        boxes = [
            (x1 - x0) * (y1 - y0)
            for x0, y0, x1, y1 in (i["bbox"] for i in items if "segmentation" not in i)
        ]
        texts = [text for item in items for text in _texts(item)]
        clicks = [item.get("point_coords", [None])[0] for item in items if "segmentation" in item]
    areas = np.concatenate([masks.areas, boxes])
    counts = {
        "images": 1,
        "pixels": height * width,
        "regions": len(items),
        "masks": len(masks),
        "small": int((areas < _SMALL).sum()),
        "medium": int(((areas >= _SMALL) & (areas < _MEDIUM)).sum()),
        "large": int((areas >= _MEDIUM).sum()),
        "captions": len(texts),
    }
    stats.counts.update(counts)
    words = [re.findall(r"[\w']+", text.lower()) for text in texts]
    stats.words.update(word for caption in words for word in caption)
    stats.counts["words"] = sum(map(len, words))
    stats.classes = {item["category_id"] for item in items if "category_id" in item}
    stats.count("regions an image", [len(items)])
    stats.count("area, percent of the image", 100 * areas / (height * width))
    stats.count("masks that contain a click", _containing(masks, clicks))
    stats.count("larger masks in which a mask lies", _nesting(drawn, masks.areas))
    stats.count("words a caption", [len(caption) for caption in words])
    return stats


def _texts(item: dict[str, Any]) -> list[str]:
    return item.get("phrases", [item["caption"]] if "caption" in item else [])


def _containing(masks: RunLengthMasks, clicks: Sequence[Any]) -> list[int]:
    """How many masks contain the click on each: that of the dataset, or its middle pixel."""
    numbers = []
    for mask in np.flatnonzero(masks.areas).tolist():
        if clicks[mask] is None:
            x, y = masks.pixel(mask, int(masks.areas[mask]) // 2)
        else:
            limits = masks.size[1] - 1, masks.size[0] - 1
            x, y = (min(max(int(v), 0), end) for v, end in zip(clicks[mask], limits, strict=True))
        numbers.append(max(1, len(masks.containing(x, y))))
    return numbers


def _nesting(codes: list[dict[str, Any]], areas: NDArray[np.int64]) -> NDArray[np.int64]:
    """In how many larger masks each lies."""
    if not codes:
        return np.zeros(0, dtype=np.int64)
    # To a crowd the IoU is the share of the first mask's own pixels.
    shares = np.asarray(coco_mask.iou(codes, codes, [1] * len(codes))).reshape(len(codes), -1)
    return ((shares >= _INSIDE) & (areas[None] > areas[:, None])).sum(axis=1)
