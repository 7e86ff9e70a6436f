"""Reading patches for CLIP and BLIP: together against transformers' processors one by one.

    OMP_NUM_THREADS=1 python benchmarks/patches.py

Both in the same run, in turns; the table has the medians.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from measure import markdown
from torch import Tensor
from transformers import BlipImageProcessor, CLIPImageProcessor

from semsam.annotation.crops import image_tensor
from semsam.modeling.patch_reader import PatchReader

PATCHES = 64
SIDES = ((8, 140), (300, 600))


def main() -> None:
    """Print one row a model and a range of sides."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    photo = image_tensor(
        rng.integers(0, 256, (1500, 2250, 3), dtype=np.uint8), torch.device(args.device)
    )
    rows = []
    for low, high in SIDES:
        patches = [cut(photo, *rng.integers(low, high + 1, 2), rng) for _ in range(PATCHES)]
        batches = [patches[i : i + args.batch_size] for i in range(0, PATCHES, args.batch_size)]
        for name, processor in (("CLIP", CLIPImageProcessor()), ("BLIP", BlipImageProcessor())):
            reader = PatchReader(processor)

            def one_by_one(batch: list[Tensor], processor: Callable = processor) -> Tensor:
                found = [
                    processor(images=p, input_data_format="channels_first", return_tensors="pt")
                    for p in batch
                ]
                return torch.cat([values["pixel_values"] for values in found])

            times = [
                (milliseconds(one_by_one, batches), milliseconds(reader, batches))
                for _ in range(args.repeats)
            ]
            before, after = (median(column) for column in zip(*times, strict=True))
            rows.append([name, f"{low} to {high}", f"{before:.2f} ms", f"{after:.2f} ms"])
    print(markdown(["model", "sides", "a patch, one by one", "together"], rows))


def cut(photo: Tensor, height: int, width: int, rng: np.random.Generator) -> Tensor:
    """A patch somewhere in the photo."""
    y, x = (
        int(rng.integers(0, s - p)) for s, p in zip(photo.shape[1:], (height, width), strict=True)
    )
    return photo[:, y : y + height, x : x + width]


def milliseconds(read: Callable, batches: list[list[Tensor]]) -> float:
    """For a patch, on the average."""
    start = time.perf_counter()
    for batch in batches:
        read(batch)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1000 / PATCHES


if __name__ == "__main__":
    main()
