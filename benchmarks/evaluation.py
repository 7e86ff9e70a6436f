"""Seconds of the evaluation's own work: the click of a mask, and the IoU of an image's masks.

    python benchmarks/evaluation.py --side 1024

Each is compared with a plain form: for the click one convolution of the whole image a wave, for
the IoU float masks of all prompts at once. Results must agree. The plain click takes a minute or
two a mask at 1024x1024.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from semsam.data.click_choice import choose_click
from semsam.evaluation.interactive import mask_iou


def main() -> None:
    """Print one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=1024, help="pixels of the square image")
    parser.add_argument("--prompts", type=int, default=11, help="clicks an image (COCO's mean)")
    parser.add_argument("--masks", type=int, default=6, help="masks a click")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    print(f"{'':24s} {'ours':>10s} {'plain':>10s}")
    for name, mask in example_masks(args.side).items():
        ours, click = best_time(lambda mask=mask: choose_click(mask), args.repeats)
        plain, expected = best_time(lambda mask=mask: plain_click(mask), 1)
        report(f"click, {name}", ours, plain)
        if click != expected:
            raise RuntimeError(f"click in the {name}: {click} is not {expected}")

    shape = (args.prompts, args.masks, args.side, args.side)
    masks = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5
    truth = masks[:, 0] ^ masks[:, -1]
    ours, iou = best_time(lambda: mask_iou(masks, truth), args.repeats)
    plain, expected_iou = best_time(lambda: plain_iou(masks, truth), 1)
    report(f"IoU, {args.prompts} x {args.masks} masks", ours, plain)
    torch.testing.assert_close(iou.float(), expected_iou)
    print(f"{args.side}x{args.side}, {torch.get_num_threads()} threads, torch {torch.__version__}")


def report(name: str, ours: float, plain: float) -> None:
    """Print seconds of both forms, and how many times faster ours is."""
    print(f"{name:24s} {ours:8.4f} s {plain:8.2f} s {plain / ours:7.0f} x")


def best_time(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Least wall time of some calls, and the last result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return min(times), result


def example_masks(side: int) -> dict[str, np.ndarray]:
    """Masks of different depth: a large disc, half of the image, ten thousand specks, one pixel."""
    ys, xs = np.ogrid[:side, :side]
    disc = (ys - side // 2) ** 2 + (xs - side // 2) ** 2 < (0.44 * side) ** 2
    half = np.broadcast_to(ys < side // 2, (side, side)).copy()
    specks = (ys % 10 < 5) & (xs % 10 < 5)
    pixel = np.zeros((side, side), dtype=bool)
    pixel[side // 3, side // 5] = True
    return {"disc": disc, "half": half, "specks": specks, "pixel": pixel}


def plain_click(mask: np.ndarray) -> tuple[int, int]:
    """The same pixel, found by convolving the whole image once a wave."""
    side, corner = np.exp(-1 / 0.35), np.exp(-np.sqrt(2) / 0.35)
    kernel = torch.tensor([[corner, side, corner], [side, 1, side], [corner, side, corner]])
    kernel = kernel[None, None].float()
    reached = F.pad(~torch.from_numpy(mask)[None, None], (1, 1, 1, 1), value=True).float()
    distance = torch.zeros_like(reached)
    for wave in range(max(reached.shape)):
        near = F.conv2d(F.pad(reached, (1, 1, 1, 1), mode="replicate"), kernel)
        step = -0.35 * near.log()
        new = (near > 0) & (reached == 0)
        if not new.any():
            break
        distance = torch.where(new, int(1.5 * wave) + step, distance)
        reached = torch.where(new, 1.0, reached)
    position = int(distance[0, 0, 1:-1, 1:-1].argmax())
    return position % mask.shape[1], position // mask.shape[1]


def plain_iou(masks: Tensor, truth: Tensor) -> Tensor:
    """The same numbers through float masks of every pair."""
    found, wanted = masks.float(), truth[:, None].float()
    overlap = (found * wanted).sum((-2, -1))
    return overlap / ((found + wanted) > 0).sum((-2, -1))


if __name__ == "__main__":
    main()
