"""Named colours, and the joints that object builders share."""

from __future__ import annotations

import math

import numpy as np

from .canvas import Material, Outline, Part

#: RGB of every colour word.
PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (204, 66, 58),
    "orange": (232, 140, 62),
    "yellow": (238, 200, 84),
    "green": (106, 158, 84),
    "teal": (66, 150, 146),
    "blue": (72, 118, 186),
    "purple": (132, 94, 164),
    "pink": (228, 140, 160),
    "brown": (142, 98, 68),
    "beige": (222, 202, 168),
    "white": (238, 236, 230),
    "gray": (148, 150, 156),
    "black": (52, 52, 60),
}
CLOTHES = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "white")


class Paints:
    """Draws materials whose colour has a name.

    Args:
        rng: source of every draw.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def __call__(
        self,
        *names: str,
        texture: str | tuple[str, ...] = "plain",
        period: float = 0.1,
        angle: float = 0.0,
        ball: bool = False,
        contrast: float = 0.16,
    ) -> Material:
        """A material of one of the named colours, slightly off its palette value."""
        name = str(self.rng.choice(names or tuple(PALETTE)))
        texture = texture if isinstance(texture, str) else str(self.rng.choice(texture))
        color = np.asarray(PALETTE[name], float) * self.rng.uniform(0.9, 1.1)
        red, green, blue = np.clip(color + self.rng.normal(0, 6, 3), 0, 255)
        return Material((red, green, blue), name, texture, period, angle, contrast, ball)


def make_object(name: str, *parts: Part) -> Part:
    """A top-level thing of the given parts, painted in this order."""
    return Part(name, parts=parts, kind="object")


def pair(name: str, outline: Outline, material: Material, *parts: Part) -> tuple[Part, Part]:
    """The same part left and right of x = 0."""
    left = Part(name, outline, material, parts)
    mirrored = left.moved(0, 0, 1, flip=True)
    return left, mirrored


def star(x: float, y: float, radius: float) -> Outline:
    """A five-pointed star."""
    angle = -math.pi / 2 + np.arange(10) * math.pi / 5
    reach = np.where(np.arange(10) % 2, 0.42, 1.0) * radius
    return np.stack([x + reach * np.cos(angle), y + reach * np.sin(angle)], axis=1)
