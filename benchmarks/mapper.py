"""Images a second of the training mapper on one core, against a plain reader.

    python benchmarks/mapper.py

The input is what SA-1B holds: a 2250x1500 photo as JPEG with 100 masks. The plain reader decodes
every mask at full size and flips, resizes, crops and pads each with PIL, as detectron2's transforms
do, then looks for the masks under each of the 60 clicks in a loop.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as mask_codes

from benchmarks.measure import markdown, ratio, seconds, spread
from semsam.config import get_cfg
from semsam.data.mappers import PromptableMapper
from semsam.data.prompt_sampling import draw_prompts
from semsam.data.run_length import RunLengthMasks
from semsam.data.transforms import LargeScaleJitter

SIZE = (1500, 2250)
NUM_MASKS = 100
NUM_PROMPTS = 60


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


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    record = make_record(rng)
    mapper = PromptableMapper(get_cfg(), is_train=True)
    ours = seconds(lambda: mapper({**record, "rng": rng}), repeats)
    plain = seconds(lambda: plain_sample(record, rng), max(repeats // 3, 1))
    codes = [annotation["segmentation"] for annotation in record["annotations"]]
    masks = mapper.jitter(SIZE, rng).apply_masks(RunLengthMasks.from_coco(codes, SIZE))
    # A new object each time: what it remembers of its runs is part of the cost.
    every = np.arange(NUM_MASKS)
    sampling = seconds(lambda: draw_prompts(masks.select(every), NUM_PROMPTS, 6, rng), repeats)
    rows = [
        ("plain reader", spread(plain), f"{1 / statistics.median(plain):.1f}"),
        ("PromptableMapper", spread(ours), f"{1 / statistics.median(ours):.1f}"),
        ("of which prompts", spread(sampling), ""),
    ]
    title = f"{SIZE[1]}x{SIZE[0]} JPEG, {NUM_MASKS} masks, to 1024, one core"
    print(markdown((title, "seconds", "images/s"), rows))
    print(f"\n{ratio(plain, ours)} the images of the plain reader")


if __name__ == "__main__":
    main()
