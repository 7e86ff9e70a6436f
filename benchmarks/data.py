"""From rows of shards to training samples: images and bytes a second of one core.

    python benchmarks/data.py

The input is what SA-1B holds: rows of a 2250x1500 photo as JPEG with 100 masks. The plain reader
decodes every mask at full size and flips, resizes, crops and pads each with PIL, as detectron2's
transforms do, then looks for the masks under each of the 60 clicks in a loop. A second table opens
an index of many rows, and starts a shuffled epoch of them, against Python lists.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import json
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as mask_codes

from benchmarks.measure import markdown, ratio, seconds, spread
from semsam.config import get_cfg
from semsam.data.datasets.sa1b import Sa1bTsv
from semsam.data.datasets.tsv import TsvFile, write_tsv
from semsam.data.mappers import PromptableMapper
from semsam.data.prompt_sampling import draw_prompts
from semsam.data.records import LazyImage
from semsam.data.run_length import RunLengthMasks
from semsam.data.samplers import TrainingSampler
from semsam.data.transforms import LargeScaleJitter

SIZE = (1500, 2250)
NUM_MASKS = 100
NUM_PROMPTS = 60
NUM_ROWS = 8


def make_record(rng: np.random.Generator) -> dict[str, Any]:
    """A smooth image with grain, and ragged discs from 30 to 500 pixels in radius."""
    height, width = SIZE
    coarse = rng.integers(0, 256, (height // 50, width // 50, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    grain = rng.integers(0, 24, image.shape, dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(np.minimum(image, 231) + grain).save(encoded, "jpeg", quality=90)
    y, x = np.ogrid[:height, :width]
    annotations = []
    for radius in np.geomspace(30, 500, NUM_MASKS):
        dy, dx = y - rng.integers(0, height), x - rng.integers(0, width)
        edge = 1 + 0.2 * np.sin(np.arctan2(dy, dx) * rng.integers(3, 40))
        mask = np.hypot(dy, dx) < radius * edge
        code = mask_codes.encode(np.asfortranarray(mask.astype(np.uint8)))
        annotations.append({"segmentation": {**code, "counts": code["counts"].decode()}})
    return {
        "file_name": "made",
        "image_id": 0,
        "image_bytes": encoded.getvalue(),
        "annotations": annotations,
    }


def plain_mapper(record: dict[str, Any], rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """Everything decoded, everything transformed, everything looked at."""
    image = Image.open(io.BytesIO(record["image_bytes"])).convert("RGB")
    geometry = LargeScaleJitter(1024, 0.99, 1.01, 0.5)(SIZE, rng)
    pixels = torch.from_numpy(geometry.apply_image(image).transpose(2, 0, 1).copy())
    (top, left), (height, width) = geometry.offset, geometry.content
    masks = np.zeros((NUM_MASKS, 1024, 1024), dtype=bool)
    for index, annotation in enumerate(record["annotations"]):
        bitmap = Image.fromarray(mask_codes.decode(annotation["segmentation"]))
        if geometry.flip:
            bitmap = bitmap.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        bitmap = bitmap.resize(geometry.resized[::-1], Image.Resampling.NEAREST)
        masks[index, :height, :width] = np.asarray(bitmap)[top:, left:][:height, :width]
    return pixels, torch.from_numpy(masks)


def plain_prompts(masks: torch.Tensor, rng: np.random.Generator) -> list[list[int]]:
    """Every pixel of a mask listed to draw one, every mask asked whether it has the pixel."""
    levels = []
    for index in np.resize(rng.permutation(NUM_MASKS), NUM_PROMPTS):
        pixels = masks[index].nonzero()
        y, x = pixels[rng.integers(len(pixels))].tolist()
        levels.append([i for i in range(NUM_MASKS) if masks[i, y, x]])
    return levels


def plain_sample(record: dict[str, Any], rng: np.random.Generator) -> None:
    """Image, masks and prompts, all in the plain way."""
    plain_prompts(plain_mapper(record, rng)[1], rng)


def write_rows(folder: Path, number: int, rng: np.random.Generator) -> int:
    """Write a shard of such rows, and return its size in bytes."""
    record = make_record(rng)
    text = json.dumps({"annotations": record["annotations"]}).encode()
    image = base64.b64encode(record["image_bytes"])
    write_tsv(folder / "sa1b-00000.tsv", ([str(i).encode(), text, image] for i in range(number)))
    return (folder / "sa1b-00000.tsv").stat().st_size


def decode(record: dict[str, Any], reduce_to: tuple[int, int] | None) -> np.ndarray:
    """The pixels of a record's image."""
    return np.asarray(LazyImage(record).decode(reduce_to))


def measure_rows(folder: Path, repeats: int) -> None:
    """Print what a row costs, part by part."""
    rng = np.random.default_rng(0)
    num_bytes = write_rows(folder, NUM_ROWS, rng) / NUM_ROWS
    records, mapper = Sa1bTsv(folder), PromptableMapper(get_cfg(), is_train=True)
    rows = itertools.cycle(range(NUM_ROWS))
    record = records[0]
    codes = [annotation["segmentation"] for annotation in record["annotations"]]
    geometry = mapper.jitter(SIZE, rng)
    masks = geometry.apply_masks(RunLengthMasks.from_coco(codes, SIZE))
    # A new object each time: what it remembers of its runs is part of the cost.
    every = np.arange(NUM_MASKS)
    plain = seconds(lambda: plain_sample(records[next(rows)], rng), max(repeats // 3, 1))
    ours = seconds(lambda: mapper({**records[next(rows)], "rng": rng}), repeats)
    parts = [
        ("plain reader", plain),
        ("ours", ours),
        ("of which reading the row", seconds(lambda: records[next(rows)], repeats)),
        ("decoding the JPEG, reduced", seconds(lambda: decode(record, geometry.resized), repeats)),
        ("(decoding the JPEG, whole)", seconds(lambda: decode(record, None), repeats)),
        (
            "prompts",
            seconds(lambda: draw_prompts(masks.select(every), NUM_PROMPTS, 6, rng), repeats),
        ),
    ]
    table = []
    for name, times in parts:
        rate = 1 / statistics.median(times)
        table.append((name, spread(times), f"{rate:.1f}", f"{rate * num_bytes / 1e6:.0f}"))
    title = (
        f"{SIZE[1]}x{SIZE[0]} JPEG, {NUM_MASKS} masks, {num_bytes / 1e6:.2f} MB, to 1024, one core"
    )
    print(markdown((title, "seconds", "images/s", "MB/s"), table))
    print(f"\n{ratio(plain, ours)} the images of the plain reader\n")


def plain_index(path: Path, seed: int) -> tuple[list[int], list[int]]:
    """Offsets and a shuffled epoch as Python lists."""
    offsets = [int(line.split()[0]) for line in path.read_text().splitlines()]
    order = list(range(len(offsets)))
    random.Random(seed).shuffle(order)
    return offsets, order


def measure_index(folder: Path, rows: int, repeats: int) -> None:
    """Print what it costs to open an index and to start an epoch."""
    write_tsv(folder / "rows.tsv", ([b"%d" % i, b"{}", b""] for i in range(rows)))

    def ours() -> None:
        sizes = [len(TsvFile(folder / "rows.tsv"))]
        next(iter(TrainingSampler([sizes], seed=0)))

    plain = seconds(lambda: plain_index(folder / "rows.lineidx", 0), repeats)
    found = seconds(ours, repeats)
    table = [("Python lists", spread(plain)), ("ours", spread(found))]
    print(markdown((f"{rows:,} rows: open the index, shuffle an epoch", "seconds"), table))
    print(f"\n{ratio(plain, found)} as fast as Python lists")


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--rows", type=int, default=200_000, help="of the index")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as rows, tempfile.TemporaryDirectory() as index:
        measure_rows(Path(rows), args.repeats)
        measure_index(Path(index), args.rows, max(args.repeats // 3, 1))


if __name__ == "__main__":
    main()
