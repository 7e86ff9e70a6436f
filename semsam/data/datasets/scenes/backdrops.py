"""What lies behind the objects of a scene, and where objects may stand before it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import creatures, things, vehicles
from .canvas import Material, Part, blob, ellipse, limb, polygon, rectangle
from .paints import Paints
from .words import plural

#: name -> builder; each takes a generator and gives an object.
OBJECTS: dict[str, Callable[[np.random.Generator], Part]] = {
    builder.__name__: builder
    for builder in (
        creatures.butterfly,
        creatures.cat,
        creatures.fish,
        creatures.person,
        creatures.robot,
        creatures.snowman,
        things.clock,
        things.flower,
        things.house,
        things.mug,
        things.tree,
        vehicles.balloon,
        vehicles.boat,
        vehicles.car,
        vehicles.rocket,
    )
}


@dataclass(frozen=True)
class Placement:
    """Where things may stand: kinds on the ground and in the air, from the horizon down.

    Attributes:
        setting: words for the caption.
        height: rows of the image.
        width: columns of the image.
        horizon: row of the horizon.
        ground: kinds that stand below the horizon.
        air: kinds that float above it.
    """

    setting: str
    height: int
    width: int
    horizon: float
    ground: tuple[str, ...]
    air: tuple[str, ...]

    def __call__(
        self, rng: np.random.Generator, number: int, group_share: float
    ) -> list[tuple[float, Part]]:
        """Place things at random, of different kinds as long as there are some.

        Args:
            rng: source of every draw.
            number: things on the ground; the fewer, the larger they are.
            group_share: chance of a thing to be a group of two or three of its kind.

        Returns:
            (depth, part) of every thing; what is deeper is painted first.
        """
        side, placed = min(self.height, self.width) * (0.75 + 0.75 / number), []
        names = itertools.cycle(rng.permutation(self.ground))
        for column, name in zip(rng.permutation(number), names, strict=False):
            x = self.width * (column + rng.uniform(0.25, 0.75)) / number
            depth = rng.uniform(0.25, 1.0)
            y = self.horizon + (self.height * 0.97 - self.horizon) * depth
            size = side * (0.28 + 0.32 * depth) * rng.uniform(0.85, 1.2)
            make = _group if rng.random() < group_share else _one
            placed.append((y, make(rng, str(name), x, y, size)))
        for _ in range(int(rng.integers(0, number)) if self.air else 0):
            size = side * rng.uniform(0.18, 0.36)
            x = self.width * rng.uniform(0.1, 0.9)
            y = max(size * 1.1, self.horizon * rng.uniform(0.5, 0.95))
            placed.append((y - self.height, _one(rng, str(rng.choice(self.air)), x, y, size)))
        return placed


def _one(rng: np.random.Generator, name: str, x: float, y: float, size: float) -> Part:
    part = OBJECTS[name](rng)
    return part.moved(x, y, size, rng.normal(0, 0.05), flip=bool(rng.random() < 0.5))


def _group(rng: np.random.Generator, name: str, x: float, y: float, size: float) -> Part:
    """Two or three of a kind side by side."""
    number = int(rng.integers(2, 4))
    size *= 0.75
    members = []
    for k in range(number):
        spot = x + (k - (number - 1) / 2) * size * rng.uniform(0.72, 0.9)
        drop = size * rng.uniform(-0.06, 0.1)
        members.append(OBJECTS[name](rng).moved(spot, y + drop, size * rng.uniform(0.85, 1.1)))
    members.sort(key=lambda member: member.extent()[3])
    return Part(plural(name), parts=tuple(members), kind="group")


def _stuff(name: str, outline: NDArray[np.float64], material: Material) -> Part:
    return Part(name, outline, material, kind="stuff")


def _curve(rng: np.random.Generator, width: int, height: int, level: float, rise: float) -> NDArray:
    """A wavy line across the picture, closed along the bottom edge."""
    x = np.linspace(-2, width + 2, 48)
    wave = sum(
        rng.normal(0, 1 / k) * np.sin(k * math.pi * x / width + rng.uniform(0, 6))
        for k in (1, 2, 3)
    )
    top = np.stack([x, level - rise * wave], axis=1)
    return np.concatenate([top, [(width + 2, height + 2), (-2, height + 2)]])


def _sky(
    rng: np.random.Generator, paint: Paints, height: int, width: int, horizon: float
) -> list[Part]:
    color = paint("blue", "blue", "teal", "orange", "pink", "purple", "gray")
    light = np.asarray(color.color) * 0.5 + 118
    sky = Material(tuple(light), color.color_name)
    items = [_stuff("sky", rectangle(-2, -2, width + 2, height + 2), sky)]
    if rng.random() < 0.5:
        radius = min(height, width) * rng.uniform(0.05, 0.1)
        spot = ellipse(
            width * rng.uniform(0.1, 0.9), horizon * rng.uniform(0.15, 0.6), radius, radius
        )
        items.append(_stuff("sun", spot, paint("yellow", "white", "orange")))
    cloud = paint("white")
    for _ in range(int(rng.integers(0, 4))):
        x, y = width * rng.uniform(0, 1), horizon * rng.uniform(0.1, 0.7)
        size = width * rng.uniform(0.07, 0.15)
        items.append(_stuff("cloud", blob(rng, x, y, size, size * 0.4, 0.35), cloud))
    return items


def _meadow(rng: np.random.Generator, height: int, width: int) -> tuple[Placement, list[Part]]:
    paint, horizon = Paints(rng), height * rng.uniform(0.4, 0.62)
    winter = rng.random() < 0.25
    items = _sky(rng, paint, height, width, horizon)
    for k in range(int(rng.integers(0, 3))):
        tone = paint("white", "gray") if winter else paint("green", "teal", "purple")
        rise = height * 0.06
        items.append(
            _stuff("hill", _curve(rng, width, height, horizon - rise * (1.2 - k), rise), tone)
        )
    ground = (
        paint("white") if winter else paint("green", "yellow", texture="mottled", period=width / 14)
    )
    items.append(
        _stuff(
            "snow" if winter else "meadow",
            _curve(rng, width, height, horizon, height * 0.01),
            ground,
        )
    )
    if rng.random() < 0.4:
        x0, x1 = width * rng.uniform(0.2, 0.8, 2)
        path = polygon(
            (x0 - 4, horizon),
            (x0 + 4, horizon),
            (x1 + width * 0.14, height + 2),
            (x1 - width * 0.14, height + 2),
        )
        items.append(
            _stuff("path", path, paint("beige", "brown", texture="mottled", period=width / 20))
        )
    kinds = (
        ("house", "tree", "snowman", "person", "cat")
        if winter
        else ("house", "tree", "flower", "person", "cat", "robot")
    )
    setting = "the snow" if winter else "a meadow"
    return Placement(
        setting, height, width, horizon, kinds, ("balloon", "butterfly", "rocket")
    ), items


def _sea(rng: np.random.Generator, height: int, width: int) -> tuple[Placement, list[Part]]:
    paint, horizon = Paints(rng), height * rng.uniform(0.35, 0.55)
    items = _sky(rng, paint, height, width, horizon)
    for _ in range(int(rng.integers(0, 3))):
        x, size = width * rng.uniform(0, 1), width * rng.uniform(0.1, 0.3)
        island = ellipse(x, horizon + 2, size, size * rng.uniform(0.3, 0.6), math.pi, 2 * math.pi)
        items.append(
            _stuff(
                "island",
                island,
                paint("green", "brown", "gray", texture=("plain", "mottled"), period=width / 16),
            )
        )
    water = paint("blue", "teal", texture="rippled", period=height / 16)
    items.append(_stuff("sea", rectangle(-2, horizon, width + 2, height + 2), water))
    return Placement(
        "the sea", height, width, horizon, ("boat", "boat", "fish"), ("balloon",)
    ), items


def _street(rng: np.random.Generator, height: int, width: int) -> tuple[Placement, list[Part]]:
    paint, horizon = Paints(rng), height * rng.uniform(0.5, 0.62)
    items = _sky(rng, paint, height, width, horizon)
    towers, x = [], -width * 0.05
    while x < width:
        wide, tall = width * rng.uniform(0.1, 0.2), height * rng.uniform(0.15, 0.42)
        wall = paint("gray", "beige", "purple", "blue", "brown")
        glass = paint("yellow", "white", "blue")
        rows, columns = max(int(tall / (height * 0.09)), 1), max(int(wide / (width * 0.06)), 1)
        windows = tuple(
            Part(
                "window",
                rectangle(
                    x + wide * (c + 0.22) / columns,
                    horizon - tall + tall * (r + 0.22) / rows,
                    x + wide * (c + 0.78) / columns,
                    horizon - tall + tall * (r + 0.8) / rows,
                ),
                glass,
            )
            for r in range(rows)
            for c in range(columns)
        )
        towers.append(
            Part("tower", rectangle(x, horizon - tall, x + wide, horizon + 2), wall, windows)
        )
        x += wide * rng.uniform(1.0, 1.25)
    items.append(Part("skyline", parts=tuple(towers), kind="stuff"))
    pavement = horizon + (height - horizon) * rng.uniform(0.15, 0.3)
    items.append(
        _stuff(
            "pavement",
            rectangle(-2, horizon, width + 2, height + 2),
            paint("beige", "gray", texture="brick", period=width / 12),
        )
    )
    dashes = tuple(
        Part(
            "dash",
            rectangle(
                at, (pavement + height) / 2 - 3, at + width * 0.08, (pavement + height) / 2 + 3
            ),
            paint("white"),
        )
        for at in np.arange(rng.uniform(-0.1, 0) * width, width, width * 0.16)
    )
    items.append(
        Part(
            "road",
            rectangle(-2, pavement, width + 2, height + 2),
            paint("gray", "black", texture="mottled", period=width / 30),
            dashes,
            kind="stuff",
        )
    )
    return Placement(
        "a street",
        height,
        width,
        horizon,
        ("car", "car", "person", "tree", "cat", "robot"),
        ("balloon",),
    ), items


def _space(rng: np.random.Generator, height: int, width: int) -> tuple[Placement, list[Part]]:
    paint, horizon = Paints(rng), height * rng.uniform(0.6, 0.8)
    night = Material(tuple(np.array((24, 26, 48)) + rng.uniform(0, 30, 3)), "black")
    items = [_stuff("sky", rectangle(-2, -2, width + 2, height + 2), night)]
    for _ in range(int(rng.integers(25, 60))):
        x, y, size = width * rng.random(), horizon * rng.random(), rng.uniform(0.4, 1.4)
        items.append(_stuff("star", ellipse(x, y, size, size), paint("white", "yellow")))
    for _ in range(int(rng.integers(1, 3))):
        x, y, size = (
            width * rng.random(),
            horizon * rng.uniform(0.1, 0.6),
            height * rng.uniform(0.07, 0.15),
        )
        skin = paint(
            "orange",
            "purple",
            "teal",
            "red",
            "blue",
            "pink",
            texture=("plain", "mottled"),
            period=size / 2,
            ball=True,
        )
        spots = [
            Part(
                "crater",
                ellipse(x + size * a, y + size * b, size * c, size * c * 0.9),
                Material(tuple(np.asarray(skin.color) * 0.72), skin.color_name),
            )
            for a, b, c in ((-0.35, -0.2, 0.24), (0.3, 0.3, 0.3), (0.35, -0.4, 0.16))
        ]
        globe = Part("globe", ellipse(x, y, size, size), skin, tuple(spots))
        ring = Part(
            "ring",
            limb(x - size * 1.5, y + size * 0.4, x + size * 1.5, y - size * 0.4, size * 0.2),
            paint("beige", "yellow", "white"),
        )
        items.append(
            Part("planet", parts=(globe, ring) if rng.random() < 0.5 else (globe,), kind="stuff")
        )
    moon = paint("gray", "beige", "orange", "purple", texture="mottled", period=width / 9)
    items.append(_stuff("ground", _curve(rng, width, height, horizon, height * 0.03), moon))
    return Placement(
        "space",
        height,
        width,
        horizon,
        ("robot", "rocket", "robot", "rocket", "house"),
        ("rocket",),
    ), items


def _table(rng: np.random.Generator, height: int, width: int) -> tuple[Placement, list[Part]]:
    paint, horizon = Paints(rng), height * rng.uniform(0.45, 0.65)
    paper = paint(
        "beige",
        "teal",
        "pink",
        "gray",
        "green",
        "yellow",
        texture=("plain", "striped", "dotted", "checked"),
        period=width / rng.uniform(6, 14),
        contrast=0.08,
    )
    items = [_stuff("wall", rectangle(-2, -2, width + 2, height + 2), paper)]
    if rng.random() < 0.5:
        x, y, size = width * rng.uniform(0.2, 0.8), horizon * 0.42, height * rng.uniform(0.12, 0.18)
        frame = rectangle(x - size * 1.2, y - size, x + size * 1.2, y + size)
        view = Part(
            "view",
            rectangle(x - size, y - size * 0.8, x + size, y + size * 0.8),
            paint("blue", "teal", "yellow"),
            (
                Part(
                    "mountain",
                    polygon(
                        (x - size, y + size * 0.8),
                        (x - size * 0.1, y - size * 0.5),
                        (x + size * 0.9, y + size * 0.8),
                    ),
                    paint("green", "purple", "gray"),
                ),
            ),
        )
        items.append(
            Part("painting", frame, paint("brown", "black", "yellow"), (view,), kind="stuff")
        )
    wood = paint(
        "brown", "beige", "white", "red", texture=("wooden", "checked", "plain"), period=height / 12
    )
    items.append(_stuff("table", rectangle(-2, horizon, width + 2, height + 2), wood))
    return Placement(
        "a room, on a table",
        height,
        width,
        horizon,
        ("mug", "clock", "flower", "robot", "cat"),
        ("butterfly",),
    ), items


#: Each takes (rng, height, width) and gives where things may stand, and what is behind them.
BACKDROPS: tuple[Callable[[np.random.Generator, int, int], tuple[Placement, list[Part]]], ...] = (
    _meadow,
    _sea,
    _street,
    _space,
    _table,
)
