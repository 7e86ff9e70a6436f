"""Scenes: a backdrop, objects alone and in groups, and a region for every visible part."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from .backdrops import BACKDROPS, OBJECTS, Placement
from .canvas import Canvas, Part
from .words import join_words, part_caption, thing_caption

# These float, and cast no shadow on what is behind them.
_AIRBORNE = ("balloon", "butterfly", "rocket")
# A region that differs from its parent by less than this share of the parent is left out.
_MIN_DIFFERENCE = 0.06


@dataclass(frozen=True)
class Region:
    """One visible mask of a scene.

    Attributes:
        mask: (H, W) bool.
        name: a noun.
        kind: "stuff", "group", "object" or "part".
        attributes: colour first, then texture.
        caption: a phrase that tells it apart, as far as words can.
        parent: index of the smallest region of the scene that holds it, or None.
    """

    mask: NDArray[np.bool_]
    name: str
    kind: str
    attributes: tuple[str, ...]
    caption: str
    parent: int | None


@dataclass(frozen=True)
class Scene:
    """A drawn picture and its nested regions, parents before their parts.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        regions: every visible region.
        caption: one sentence.
    """

    image: NDArray[np.uint8]
    regions: tuple[Region, ...]
    caption: str


def draw_scene(
    rng: np.random.Generator,
    height: int = 320,
    width: int = 320,
    min_area: float = 0.0016,
    max_things: int = 3,
    kinds: Collection[str] = tuple(OBJECTS),
    group_share: float = 0.3,
) -> Scene:
    """Draw a scene; the same generator state gives the same scene.

    Args:
        rng: source of every draw.
        height: rows, at least 64.
        width: columns, at least 64.
        min_area: regions of a smaller visible share of the image are left out.
        max_things: at most so many objects or groups stand on the ground, one at least; the fewer,
            the larger.
        kinds: names of the objects that may appear.
        group_share: chance of a thing to be a group of two or three of its kind.

    Raises:
        ValueError: if the picture is smaller than 64 pixels on a side, or a kind is unknown.
    """
    if min(height, width) < 64:
        raise ValueError(f"a scene needs 64 pixels a side, got {height}x{width}")
    if not kinds or not set(kinds) <= set(OBJECTS):
        raise ValueError(f"kinds are among {', '.join(OBJECTS)}; got {', '.join(kinds) or 'none'}")
    canvas = Canvas(
        height,
        width,
        light=rng.uniform(-2.6, -0.6),
        ink=float(rng.choice([0.0, 0.0, 0.35, 0.6])),
    )
    place, backdrop = _choose_place(rng, height, width, kinds)
    things = place(rng, int(rng.integers(1, max_things + 1)), group_share)
    things.sort(key=lambda thing: thing[0])
    parts = [*backdrop, *(part for _, part in things)]
    owners = _paint(canvas, parts, rng)
    regions = _regions(canvas.owner, parts, owners, min_area * height * width)
    shown = [r.caption for r in regions if r.parent is None and r.kind in ("group", "object")]
    caption = f"a drawing of {join_words(shown)} in {place.setting}" if shown else place.setting
    return Scene(_finish(canvas.color, rng), regions, caption)


def _choose_place(
    rng: np.random.Generator, height: int, width: int, kinds: Collection[str]
) -> tuple[Placement, list[Part]]:
    """A backdrop on whose ground, or in whose air, one of the kinds may be."""
    while True:
        place, backdrop = BACKDROPS[int(rng.integers(len(BACKDROPS)))](rng, height, width)
        ground = tuple(kind for kind in place.ground if kind in kinds)
        air = tuple(kind for kind in place.air if kind in kinds)
        if ground or air:
            # What only floats elsewhere may stand here.
            return replace(place, ground=ground or air, air=air), backdrop


def _paint(canvas: Canvas, parts: list[Part], rng: np.random.Generator) -> list[list[int]]:
    """Paint everything; for each top-level part the owner number of each part of its walk."""
    shade = rng.uniform(0.15, 0.4)
    owners, number = [], 0
    for top in parts:
        for thing in top.parts if top.kind == "group" else (top,):
            if thing.kind == "object" and thing.name not in _AIRBORNE:
                x0, _, x1, y1 = thing.extent()
                canvas.shadow((x0 + x1) / 2, y1, x1 - x0, shade)
        mine = []
        for part in top.walk():
            if part.outline is not None and part.material is not None:
                canvas.paint(part.outline, part.material, number)
            mine.append(number)
            number += 1
        owners.append(mine)
    return owners


def _regions(
    owner: NDArray[np.int32], parts: list[Part], owners: list[list[int]], least: float
) -> tuple[Region, ...]:
    regions: list[Region] = []
    pixels = np.bincount(owner.ravel() + 1, minlength=owners[-1][-1] + 2)[1:]

    def visit(part: Part, numbers: list[int], parent: int | None, thing: Part | None) -> None:
        # A part's numbers follow each other: itself, then all below it.
        below = sum(1 for _ in part.walk())
        area = int(pixels[numbers[0] : numbers[0] + below].sum())
        if area < least:
            return
        thing = part if part.kind == "object" else thing
        inside = None if parent is None else int(regions[parent].mask.sum())
        if inside is None or area < (1 - _MIN_DIFFERENCE) * inside:
            mask = (owner >= numbers[0]) & (owner < numbers[0] + below)
            words = thing_caption(part) if part.kind != "part" else part_caption(part, thing)
            regions.append(Region(mask, part.name, part.kind, _attributes(part), words, parent))
            parent = len(regions) - 1
        offset = 1
        for child in part.parts:
            visit(child, numbers[offset:], parent, thing)
            offset += sum(1 for _ in child.walk())

    for part, numbers in zip(parts, owners, strict=True):
        visit(part, numbers, None, None)
    return tuple(regions)


def _attributes(part: Part) -> tuple[str, ...]:
    if part.material is None:
        return part.attributes
    texture = () if part.material.texture == "plain" else (part.material.texture,)
    return (part.material.color_name, *texture, *part.attributes)


def _finish(color: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light, lens and sensor: a tint, a vignette, a little blur, grain."""
    height, width = color.shape[:2]
    tint = 1 + rng.normal(0, 0.04, 3) + rng.normal(0, 0.05)
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    vignette = 1 - rng.uniform(0, 0.12) * (rows**2 + columns**2)
    light = tint * vignette[..., None]
    lit = (color * light).astype(np.float32)
    blur = rng.uniform(0, 0.8)
    if blur > 0.3:
        lit = cv2.GaussianBlur(lit, (0, 0), blur).astype(np.float32)
    grain = rng.normal(0, rng.uniform(1, 7), lit.shape)
    return np.clip(lit + grain, 0, 255).astype(np.uint8)
