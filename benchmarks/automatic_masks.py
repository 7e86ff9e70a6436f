"""Seconds and memory of the automatic mask generator, split into its parts.

    python benchmarks/automatic_masks.py --side 1024 --points-per-side 32

Weights are random, so the filters on predicted IoU and stability are off unless asked for: every
mask of every click is measured, which is the worst case.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from semsam import AutomaticMaskGenerator, model_zoo


def main() -> None:
    """Print one line a part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="semantic-sam-swin-t")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--image", help="photo; noise if absent")
    parser.add_argument("--side", type=int, default=1024, help="pixels of the square input")
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--points-per-batch", type=int, default=64)
    parser.add_argument("--box-nms-thresh", type=float, default=0.7)
    args = parser.parse_args()

    torch.manual_seed(0)
    model = model_zoo.get(args.model, device=args.device, trained=False)
    generator = AutomaticMaskGenerator(
        model,
        points_per_side=args.points_per_side,
        points_per_batch=args.points_per_batch,
        pred_iou_thresh=None,
        stability_score_thresh=None,
        box_nms_thresh=args.box_nms_thresh,
        output_mode="coco_rle",
        min_size=args.side,
    )
    seconds: dict[str, float] = defaultdict(float)
    model.encode_image = timed(model.encode_image, "encode image", seconds)
    model.decode = timed(model.decode, "decode clicks", seconds)
    image = read_image(args.image, args.side)

    start = time.perf_counter()
    records = generator.generate(image)
    total = time.perf_counter() - start
    seconds["everything else"] = total - sum(seconds.values())
    for part, spent in seconds.items():
        print(f"{part:18s} {spent:8.2f} s")
    print(f"{'total':18s} {total:8.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{'peak memory':18s} {peak:8.2f} GiB")
    print(f"{len(records)} masks, {torch.get_num_threads()} threads, torch {torch.__version__}")


def timed(function: Callable, name: str, seconds: dict[str, float]) -> Callable:
    """The same function, adding its wall time to ``seconds[name]``."""

    def call(*args: Any) -> Any:
        start = time.perf_counter()
        result = function(*args)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds[name] += time.perf_counter() - start
        return result

    return call


def read_image(path: str | None, side: int) -> np.ndarray:
    """(side, side, 3) uint8 RGB."""
    if path is None:
        return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return np.array(Image.open(path).convert("RGB").resize((side, side)))


if __name__ == "__main__":
    main()
