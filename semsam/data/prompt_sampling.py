"""Prompts drawn from masks or boxes for training (Semantic-SAM, section 3.2).

Pure functions of these and a generator. The generator is ``numpy.random.Generator`` or anything
with its ``permutation``, ``integers``, ``shuffle`` and ``uniform``, so recorded draws can be played
back. Coordinates are pixels; the pixel in column x and row y has the coordinates (x, y).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from semsam.data.run_length import IntArray, RunLengthMasks
from semsam.structures import Prompts, PromptTargets, box_cxcywh_to_xyxy
from semsam.structures.prompts import CLICK_EXTENT

#: Noise on a click, relative to noise on a box of the same size.
CLICK_NOISE = 0.01

FloatArray = NDArray[np.float64]


class Draws(Protocol):
    """The part of ``numpy.random.Generator`` that is used here."""

    def permutation(self, x: int) -> IntArray:
        """A random order of 0 to x - 1."""

    def integers(self, low: int, high: int) -> int:
        """An integer from low to high - 1."""

    def shuffle(self, x: Any) -> None:
        """Reorder in place."""

    def uniform(self, low: float, high: float, size: tuple[int, ...]) -> FloatArray:
        """Numbers between low and high."""


def draw_prompts(
    masks: RunLengthMasks,
    num_prompts: int,
    max_levels: int,
    rng: Draws,
    box_ratio: float = 0.0,
    noise: float = 0.0,
) -> tuple[Prompts, PromptTargets]:
    """Draw the prompts of one training image and say which masks answer each.

    A click falls on a uniformly drawn pixel of its seed mask; every mask that contains the pixel
    answers it, from part to whole. A box is that of its seed mask, which alone answers it.

    Args:
        masks: M masks, none of them empty.
        num_prompts: N; masks serve as seeds again when there are fewer.
        max_levels: at most so many masks answer a click; a random choice of those that could.
        rng: order of draws: seeds, then for each click its pixel and the choice of its masks, then
            noise.
        box_ratio: share of prompts, the last ones, that are boxes.
        noise: see ``jitter``.

    Raises:
        ValueError: if there is no mask.
    """
    seeds = draw_seeds(len(masks), num_prompts, rng)
    num_clicks = num_prompts - round(num_prompts * box_ratio)
    clicks = np.zeros((num_clicks, 2))
    levels = np.full((num_prompts, max_levels), -1, dtype=np.int64)
    for prompt, seed in enumerate(seeds[:num_clicks]):
        x, y = masks.pixel(seed, int(rng.integers(0, int(masks.areas[seed]))))
        answers = masks.containing(x, y)
        if len(answers) > max_levels:
            rng.shuffle(answers)
            answers = answers[:max_levels]
        clicks[prompt] = x, y
        levels[prompt, : len(answers)] = answers
    levels[num_clicks:, 0] = seeds[num_clicks:]
    prompts = _jittered(clicks, masks.boxes[seeds[num_clicks:]], masks.size, noise, rng)
    return prompts, PromptTargets(torch.as_tensor(seeds), torch.from_numpy(levels))


def draw_box_prompts(
    boxes: NDArray[np.float32],
    size: tuple[int, int],
    num_prompts: int,
    rng: Draws,
    noise: float = 0.0,
) -> tuple[Prompts, PromptTargets]:
    """Draw the prompts of one training image whose objects have no masks.

    Each is an object's box, with noise as in Mask DINO's denoising (Li et al. 2022), and asks for
    this object alone. A click would not do: what lies at a pixel of a box need not be its object.

    Args:
        boxes: (M, 4) XYXY pixels.
        size: (height, width) of the frame.
        num_prompts: N; boxes serve again when there are fewer.
        rng: order of draws: seeds, then noise.
        noise: see ``jitter``.

    Raises:
        ValueError: if there is no box.
    """
    seeds = draw_seeds(len(boxes), num_prompts, rng)
    asked = boxes[seeds].astype(np.float64)
    if noise:
        asked = jitter_boxes(asked, noise, size, rng)
    own = torch.as_tensor(seeds)
    return Prompts.from_boxes(torch.from_numpy(asked)), PromptTargets(own, own[:, None])


def draw_seeds(number: int, num_prompts: int, rng: Draws) -> IntArray:
    """(num_prompts,) indices of masks or boxes: a random order of all, as often as needed.

    Raises:
        ValueError: if there is none.
    """
    if number == 0:
        raise ValueError("prompts need at least one mask or box to be drawn from")
    return np.resize(rng.permutation(number), num_prompts)


def jitter(boxes: FloatArray, scale: float, size: tuple[int, int], draws: FloatArray) -> FloatArray:
    """Move and resize boxes a little.

    Args:
        boxes: (N, 4) centre x, centre y, width, height in pixels.
        scale: the largest change of width and height, and twice that of the centre, as a share of
            the box's width and height.
        size: (height, width) of the frame, at which the four numbers are clamped.
        draws: (N, 4) in [-1, 1].
    """
    reach = np.concatenate([boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)
    limit = np.array([size[1], size[0]] * 2)
    return np.clip(boxes + draws * scale * reach, 0, limit)


def jitter_boxes(boxes: FloatArray, noise: float, size: tuple[int, int], rng: Draws) -> FloatArray:
    """(N, 4) XYXY boxes in pixels with noise of ``jitter``, which may reach beyond the frame."""
    middles, extents = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    draws = rng.uniform(-1.0, 1.0, (len(boxes), 4))
    moved = jitter(np.concatenate([middles, extents], axis=1), noise, size, draws)
    return np.concatenate(
        [moved[:, :2] - moved[:, 2:] / 2, moved[:, :2] + moved[:, 2:] / 2], axis=1
    )


def _jittered(
    clicks: FloatArray,
    boxes: NDArray[np.float32],
    size: tuple[int, int],
    noise: float,
    rng: Draws,
) -> Prompts:
    """Prompts of (N, 2) clicks followed by (M, 4) XYXY boxes, with noise on both."""
    clicks = np.concatenate([clicks, np.full_like(clicks, CLICK_EXTENT)], axis=1)
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    objects = np.concatenate([(low + high) / 2, high - low], axis=1)
    if noise:
        draws = rng.uniform(-1.0, 1.0, (len(clicks) + len(objects), 4))
        clicks = jitter(clicks, noise * CLICK_NOISE, size, draws[: len(clicks)])
        objects = jitter(objects, noise, size, draws[len(clicks) :])
    points, extents = (torch.as_tensor(part).float() for part in (clicks[:, :2], clicks[:, 2:]))
    prompts = Prompts.from_points(points, extents=extents)
    if not len(objects):
        return prompts
    corners = box_cxcywh_to_xyxy(torch.as_tensor(objects))
    return Prompts.cat([prompts, Prompts.from_boxes(corners)])
