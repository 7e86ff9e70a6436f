"""House, tree, flower, mug and clock: each drawn anew from a random generator.

An object stands on y = 0 around x = 0 and is about one unit high; y grows downwards.
"""

from __future__ import annotations

import math

import numpy as np

from .canvas import Material, Part, blob, ellipse, limb, petals, polygon, rectangle
from .paints import CLOTHES, Paints, make_object, pair, star


def _window(paint: Paints, x: float, y: float, w: float, h: float, frame: Material) -> Part:
    glass = paint("blue", "teal", "yellow", "white")
    gap, half_w, half_h = 0.12 * min(w, h), w / 2, h / 2
    panes = [
        Part(
            "pane",
            rectangle(px + gap, py + gap, px + half_w - gap / 2, py + half_h - gap / 2),
            glass,
        )
        for px in (x - half_w, x - gap / 2)
        for py in (y - half_h, y - gap / 2)
    ]
    return Part(
        "window", rectangle(x - half_w, y - half_h, x + half_w, y + half_h), frame, tuple(panes)
    )


def house(rng: np.random.Generator) -> Part:
    """Roof with chimney, facade with door and windows of four panes."""
    paint = Paints(rng)
    half, wall, peak = rng.uniform(0.34, 0.55), rng.uniform(0.5, 0.66), rng.uniform(0.92, 1.1)
    frame = paint("white", "brown", "beige", "gray")
    door_x = rng.choice([-0.5, 0.0, 0.5]) * half
    door = Part(
        "door",
        rectangle(door_x - 0.1, -0.34, door_x + 0.1, 0),
        paint("red", "brown", "green", "blue", texture=("plain", "wooden"), period=0.05),
        (
            Part(
                "door window",
                rectangle(door_x - 0.06, -0.3, door_x + 0.06, -0.19),
                paint("white", "blue"),
            ),
            Part("knob", ellipse(door_x + 0.065, -0.13, 0.025, 0.025), paint("yellow", ball=True)),
        ),
    )
    spots = [x * half for x in (-0.5, 0.0, 0.5) if abs(x * half - door_x) > 0.1]
    windows = [_window(paint, x, -0.36, 0.2, 0.22, frame) for x in spots]
    facade = Part(
        "facade",
        rectangle(-half, -wall, half, 0),
        paint(
            "beige",
            "white",
            "red",
            "yellow",
            "pink",
            "blue",
            texture=("plain", "brick", "wooden"),
            period=0.13,
        ),
        (door, *windows),
    )
    over = half + 0.08
    gable = (
        ()
        if rng.random() < 0.5
        else (
            Part(
                "roof window",
                ellipse(0, -(wall + peak) / 2 + 0.04, 0.09, 0.09),
                frame,
                (
                    Part(
                        "pane",
                        ellipse(0, -(wall + peak) / 2 + 0.04, 0.06, 0.06),
                        paint("blue", "yellow"),
                    ),
                ),
            ),
        )
    )
    flat = rng.uniform(0, 0.6) * half
    roof = Part(
        "roof",
        polygon((-over, -wall), (-flat, -peak), (flat, -peak), (over, -wall)),
        paint(
            "brown",
            "red",
            "gray",
            "teal",
            "purple",
            texture=("plain", "brick", "striped"),
            period=0.09,
        ),
        gable,
    )
    side = rng.choice([-0.55, 0.55]) * half
    chimney = Part(
        "chimney",
        rectangle(side - 0.06, -peak - 0.08, side + 0.06, -wall),
        paint("brown", "red", "gray", texture="brick", period=0.06),
    )
    return make_object("house", chimney, facade, roof)


def tree(rng: np.random.Generator) -> Part:
    """A trunk under a round crown with fruit, or under the tiers of a fir."""
    paint = Paints(rng)
    trunk = Part(
        "trunk",
        polygon((-0.09, 0), (-0.05, -0.6), (0.05, -0.6), (0.09, 0)),
        paint("brown", texture="wooden", period=0.04, angle=1.57),
    )
    if rng.random() < 0.4:
        number = int(rng.integers(2, 5))
        green = paint("green", "teal")
        tiers = []
        for k in range(number):
            low, wide = -0.22 - 0.62 * k / number, 0.4 * (1 - 0.6 * k / number)
            tiers.append(
                Part("tier", polygon((-wide, low), (0, low - 0.5 + 0.05 * k), (wide, low)), green)
            )
        return make_object("fir", trunk, Part("crown", None, green, tuple(tiers)))
    crown = blob(rng, 0, -0.68, rng.uniform(0.3, 0.42), 0.34)
    leaves = paint(
        "green",
        "green",
        "orange",
        "pink",
        "yellow",
        texture=("plain", "mottled", "dotted"),
        period=0.09,
    )
    fruit = []
    if rng.random() < 0.6:
        skin = paint("red", "orange", "yellow", "white", ball=True)
        for angle in np.linspace(
            0, 2 * math.pi, int(rng.integers(3, 6)), endpoint=False
        ) + rng.uniform(0, 6):
            fruit.append(
                Part(
                    "fruit",
                    ellipse(0.2 * math.cos(angle), -0.68 + 0.2 * math.sin(angle), 0.055, 0.055),
                    skin,
                )
            )
    return make_object("tree", trunk, Part("crown", crown, leaves, tuple(fruit)))


def flower(rng: np.random.Generator) -> Part:
    """A blossom of petals on a stem with leaves, in a pot or not."""
    paint = Paints(rng)
    green = paint("green", "teal")
    number = int(rng.integers(5, 9))
    petal = paint("red", "orange", "yellow", "pink", "purple", "white", "blue")
    drops = petals(0, -0.78, rng.uniform(0.24, 0.32), number, rng.uniform(0, 1))
    heart = Part(
        "heart",
        ellipse(0, -0.78, 0.09, 0.09),
        paint("yellow", "brown", "orange", texture=("plain", "dotted"), period=0.05, ball=True),
    )
    blossom = Part("blossom", None, petal, (*(Part("petal", d, petal) for d in drops), heart))
    stem = Part("stem", limb(0, 0, 0, -0.78, 0.05), green)
    leaf = ellipse(0.14, -0.34, 0.14, 0.055)
    leaves = pair("leaf", leaf, green)
    if rng.random() < 0.5:
        return make_object("flower", stem, *leaves, blossom)
    clay = paint(
        "brown", "orange", "teal", "white", texture=("plain", "striped", "dotted"), period=0.09
    )
    pot = Part(
        "pot",
        polygon((-0.2, -0.26), (0.2, -0.26), (0.14, 0), (-0.14, 0)),
        clay,
        (Part("rim", rectangle(-0.23, -0.3, 0.23, -0.22, 0.02), clay),),
    )
    return make_object("flower", stem, *(p.moved(0, -0.1, 1) for p in leaves), blossom, pot)


def mug(rng: np.random.Generator) -> Part:
    """A mug with a handle, a band and a drink."""
    paint = Paints(rng)
    china = paint(*CLOTHES, texture=("plain", "dotted", "striped"), period=0.16)
    bow = ellipse(0.34, -0.4, 0.24, 0.26, -math.pi / 2, math.pi / 2)
    inner = ellipse(0.34, -0.4, 0.14, 0.16, -math.pi / 2, math.pi / 2)
    handle = Part("handle", np.concatenate([bow, inner[::-1]]), china)
    drink = Part("drink", ellipse(0, -0.78, 0.3, 0.075), paint("brown", "green", "orange"))
    picture = Part("picture", star(0, -0.38, 0.2), paint("white", "red", "blue", "yellow"))
    cup = Part(
        "cup",
        np.concatenate(
            [
                ellipse(0, -0.8, 0.36, 0.1, math.pi, 2 * math.pi),
                rectangle(-0.36, -0.8, 0.36, 0, 0.1)[:12],
            ]
        ),
        china,
        (picture, Part("rim", ellipse(0, -0.79, 0.36, 0.1), paint("white", "beige"), (drink,))),
    )
    return make_object("mug", handle, cup)


def clock(rng: np.random.Generator) -> Part:
    """A table clock: case on feet, dial with marks and hands."""
    paint = Paints(rng)
    feet = pair("foot", limb(-0.2, -0.2, -0.3, -0.03, 0.09), paint("brown", "black", "gray"))
    dark = paint("black", "blue", "red")
    hour, minute = rng.uniform(0, 2 * math.pi, 2)
    marks = tuple(
        Part("mark", ellipse(0.27 * math.cos(a), -0.55 + 0.27 * math.sin(a), 0.035, 0.035), dark)
        for a in np.arange(4) * math.pi / 2
    )
    hands = (
        Part(
            "hour hand",
            limb(0, -0.55, 0.14 * math.cos(hour), -0.55 + 0.14 * math.sin(hour), 0.06),
            dark,
        ),
        Part(
            "minute hand",
            limb(0, -0.55, 0.24 * math.cos(minute), -0.55 + 0.24 * math.sin(minute), 0.045),
            dark,
        ),
    )
    dial = Part(
        "dial", ellipse(0, -0.55, 0.34, 0.34), paint("white", "beige", "yellow"), (*marks, *hands)
    )
    bells = pair("bell", ellipse(-0.22, -0.97, 0.13, 0.11), paint("yellow", "gray", ball=True))
    case = Part(
        "case",
        ellipse(0, -0.55, 0.43, 0.43),
        paint("red", "teal", "blue", "green", "purple", "orange"),
        (dial,),
    )
    return make_object("clock", *feet, *bells, case)
