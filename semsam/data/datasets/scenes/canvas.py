"""A canvas that remembers which part owns each pixel, and the shapes painted on it.

Outlines are (N, 2) float arrays of x, y; y grows downwards. Parts are composed in units of their
object (one unit is its height or so, the base at y = 0) and moved into pixels before painting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float64]

# Outlines are drawn this many times larger.
_FINE = 4


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    Attributes:
        color: RGB, 0..255.
        color_name: a word for it.
        texture: a key of ``TEXTURES``.
        period: length of one repeat of the texture, in the outline's units.
        angle: direction of the texture, radians.
        contrast: share by which the texture darkens and brightens.
        ball: shade it as a sphere and not as a plane.
    """

    color: tuple[float, float, float]
    color_name: str
    texture: str = "plain"
    period: float = 0.1
    angle: float = 0.0
    contrast: float = 0.16
    ball: bool = False


@dataclass(frozen=True)
class Part:
    """An object, or a part of one: an outline under the outlines of its own parts.

    Attributes:
        name: a noun.
        outline: (N, 2), or None where the parts alone make it up.
        material: how the outline is filled.
        parts: painted in this order, after the outline.
        attributes: words beside the colour and the texture.
        kind: "stuff", "group", "object" or "part".
    """

    name: str
    outline: Outline | None = None
    material: Material | None = None
    parts: tuple[Part, ...] = ()
    attributes: tuple[str, ...] = ()
    kind: str = "part"

    def moved(
        self, x: float, y: float, scale: float, angle: float = 0.0, flip: bool = False
    ) -> Part:
        """Scale, mirror, turn by ``angle`` radians about the origin, then shift to (x, y)."""
        cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
        matrix = np.array([[cos, sin], [-sin, cos]])
        if flip:
            matrix = np.diag([-1.0, 1.0]) @ matrix
        return self._mapped(matrix, np.array([x, y]), scale, angle)

    def _mapped(self, matrix: Outline, shift: Outline, scale: float, angle: float) -> Part:
        material = self.material
        if material is not None:
            material = replace(
                material, period=material.period * scale, angle=material.angle + angle
            )
        return replace(
            self,
            outline=None if self.outline is None else self.outline @ matrix + shift,
            material=material,
            parts=tuple(p._mapped(matrix, shift, scale, angle) for p in self.parts),
        )

    def extent(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of everything in it."""
        points = np.concatenate([p.outline for p in self.walk() if p.outline is not None])
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)

    def walk(self) -> Iterator[Part]:
        """This part and all below it, parents first."""
        yield self
        for part in self.parts:
            yield from part.walk()


@dataclass
class Canvas:
    """Colours, and the number of the part that is on top at each pixel.

    Attributes:
        height: rows.
        width: columns.
        light: direction from which light comes, radians.
        ink: how dark the contour lines are, 0..1.
        color: (H, W, 3) float32 RGB, 0..255.
        owner: (H, W) int32; -1 where nothing was painted.
    """

    height: int
    width: int
    light: float = -2.2
    ink: float = 0.0
    color: NDArray[np.float32] = field(init=False)
    owner: NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        self.color = np.zeros((self.height, self.width, 3), np.float32)
        self.owner = np.full((self.height, self.width), -1, np.int32)

    def paint(self, outline: Outline, material: Material, owner: int) -> None:
        """Fill an outline (pixels) and hand its pixels to ``owner``; what is outside is cut."""
        low = np.maximum(np.floor(outline.min(axis=0)).astype(int) - 1, 0)
        high = np.minimum(np.ceil(outline.max(axis=0)).astype(int) + 2, (self.width, self.height))
        if (high <= low).any():
            return
        (x0, y0), (x1, y1) = low, high
        # Drawn large and shrunk: OpenCV's own smooth edges bulge by half a pixel.
        points = np.rint((outline - low) * _FINE - 0.5).astype(np.int32)
        fine = np.zeros(((y1 - y0) * _FINE, (x1 - x0) * _FINE), np.uint8)
        cv2.fillPoly(fine, [points], 255)
        cover = cv2.resize(fine, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
        surface = self._surface(outline, material, np.arange(x0, x1), np.arange(y0, y1))
        if self.ink > 0:
            line = np.zeros_like(fine)
            cv2.polylines(line, [points], True, 255, _FINE)
            line = cv2.resize(line, cover.shape[::-1], interpolation=cv2.INTER_AREA)
            surface *= 1 - (line * (self.ink / 255))[..., None]
        alpha = (cover / np.float32(255))[..., None]
        window = self.color[y0:y1, x0:x1]
        window += alpha * (surface - window)
        self.owner[y0:y1, x0:x1][cover > 127] = owner

    def shadow(self, x: float, y: float, width: float, strength: float) -> None:
        """Darken a soft flat ellipse below an object; it belongs to nobody."""
        rows, columns = np.ogrid[: self.height, : self.width]
        distance = ((columns - x) / (0.6 * width)) ** 2 + ((rows - y) / (0.11 * width)) ** 2
        self.color *= (1 - strength * np.exp(-(distance**2)).astype(np.float32))[..., None]

    def _surface(
        self, outline: Outline, material: Material, columns: NDArray, rows: NDArray
    ) -> NDArray[np.float32]:
        """(h, w, 3) colours of a material over a window of pixels."""
        (left, top), (right, bottom) = outline.min(axis=0), outline.max(axis=0)
        x = (columns[None, :] - (left + right) / 2).astype(np.float32)
        y = (rows[:, None] - (top + bottom) / 2).astype(np.float32)
        nx, ny = x / max(right - left, 1) * 2, y / max(bottom - top, 1) * 2
        lx, ly = math.cos(self.light), math.sin(self.light)
        if material.ball:
            off = (nx - 0.4 * lx) ** 2 + (ny - 0.4 * ly) ** 2
            value = 1.18 - 0.30 * np.minimum(off, 1.8)
        else:
            value = 1 + 0.10 * (nx * lx + ny * ly)
        if material.texture != "plain":
            cos, sin = math.cos(material.angle), math.sin(material.angle)
            period = max(material.period, 3.0)
            u, v = (x * cos + y * sin) / period, (y * cos - x * sin) / period
            value = value * (1 + material.contrast * TEXTURES[material.texture](u, v))
        return value[..., None] * np.asarray(material.color, np.float32)


def _soft_sign(wave: NDArray) -> NDArray:
    return np.clip(wave * 4, -1, 1)


def _bricks(u: NDArray, v: NDArray) -> NDArray:
    row = np.floor(v * 2)
    joint = (np.abs(v * 2 - row - 0.5) > 0.38) | (np.abs((u + row / 2) % 1 - 0.5) > 0.44)
    return np.where(joint, -1.0, 0.3)


def _planks(u: NDArray, v: NDArray) -> NDArray:
    row = np.floor(v)
    tone = np.sin(row * 12.9898) * 0.5
    return np.where(np.abs(v - row - 0.5) > 0.44, -1.0, tone) + 0.0 * u


def _dots(u: NDArray, v: NDArray) -> NDArray:
    row = np.floor(v)
    distance = np.hypot((u + 0.5 * (row % 2)) % 1 - 0.5, v - row - 0.5)
    return np.clip((0.27 - distance) * 12, -1, 1)


def _ripples(u: NDArray, v: NDArray) -> NDArray:
    return np.sin(2 * math.pi * (v + 0.25 * np.sin(1.7 * u))) * np.sin(0.9 * u + 2.1 * np.floor(v))


def _mottle(u: NDArray, v: NDArray) -> NDArray:
    return (
        np.sin(2.1 * u + 1.3 * v) * np.sin(1.1 * u - 2.7 * v)
        + 0.5 * np.sin(5.3 * u - 3.1 * v) * np.sin(4.7 * v + 2.9 * u)
    ) / 1.5


#: name -> function of coordinates in periods, giving -1 (dark) .. 1 (bright).
TEXTURES: dict[str, Callable[[NDArray, NDArray], NDArray]] = {
    "plain": lambda u, v: np.zeros(np.broadcast_shapes(u.shape, v.shape), np.float32),
    "striped": lambda u, v: _soft_sign(np.sin(2 * math.pi * u)) + 0.0 * v,
    "checked": lambda u, v: _soft_sign(np.sin(math.pi * u) * np.sin(math.pi * v)),
    "dotted": _dots,
    "brick": _bricks,
    "wooden": _planks,
    "rippled": _ripples,
    "mottled": _mottle,
}


def rectangle(x0: float, y0: float, x1: float, y1: float, corner: float = 0.0) -> Outline:
    """A rectangle, its corners rounded with radius ``corner``."""
    if corner <= 0:
        return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)
    turns = np.linspace(0, math.pi / 2, 6)
    centres = [
        (x1 - corner, y1 - corner),
        (x0 + corner, y1 - corner),
        (x0 + corner, y0 + corner),
        (x1 - corner, y0 + corner),
    ]
    arcs = []
    for quarter, centre in enumerate(centres):
        angle = turns + quarter * math.pi / 2
        arcs.append(np.asarray(centre) + corner * np.stack([np.cos(angle), np.sin(angle)], 1))
    return np.concatenate(arcs)


def ellipse(
    x: float, y: float, rx: float, ry: float, start: float = 0.0, stop: float = 2 * math.pi
) -> Outline:
    """An ellipse, or the piece of it between two angles closed by a chord."""
    angle = np.linspace(start, stop, 40, endpoint=stop - start < 2 * math.pi - 1e-6)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def polygon(*points: tuple[float, float]) -> Outline:
    """Corner after corner."""
    return np.array(points, float)


def limb(x0: float, y0: float, x1: float, y1: float, width: float, taper: float = 1.0) -> Outline:
    """A straight limb with round ends; ``taper`` is the width at the far end over ``width``."""
    direction = math.atan2(y1 - y0, x1 - x0)
    far = np.linspace(-math.pi / 2, math.pi / 2, 9) + direction
    near = far + math.pi
    ends = [
        np.stack([x + w / 2 * np.cos(a), y + w / 2 * np.sin(a)], axis=1)
        for x, y, w, a in [(x1, y1, width * taper, far), (x0, y0, width, near)]
    ]
    return np.concatenate(ends)


def petals(x: float, y: float, radius: float, number: int, turn: float = 0.0) -> list[Outline]:
    """``number`` drop-shaped petals around a centre."""
    wide = radius * math.sin(math.pi / number) * 0.85
    angle = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    # A drop: its tip at the centre, its belly near the rim.
    along = radius * (1 - np.cos(angle)) / 2
    across = wide * np.sin(angle) * (along / radius) ** 0.6
    outlines = []
    for k in range(number):
        theta = turn + 2 * math.pi * k / number
        cos, sin = math.cos(theta), math.sin(theta)
        outlines.append(
            np.stack([x + along * cos - across * sin, y + along * sin + across * cos], axis=1)
        )
    return outlines


def blob(
    rng: np.random.Generator, x: float, y: float, rx: float, ry: float, rough: float = 0.18
) -> Outline:
    """A wobbly closed curve."""
    angle = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    waves = np.arange(2, 7)
    size = rough * rng.uniform(0.3, 1.0, 5) / np.sqrt(waves)
    phase = rng.uniform(0, 2 * math.pi, 5)
    radius = 1 + (size * np.cos(waves * angle[:, None] + phase)).sum(axis=1)
    return np.stack([x + rx * radius * np.cos(angle), y + ry * radius * np.sin(angle)], axis=1)
