"""Car, boat, balloon and rocket: each drawn anew from a random generator.

An object stands on y = 0 around x = 0 and is about one unit high; y grows downwards.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from .canvas import Part, ellipse, limb, polygon, rectangle
from .paints import CLOTHES, Paints, make_object, pair


def car(rng: np.random.Generator) -> Part:
    """Body with windows, door, lights; wheels with hubs. Two units long."""
    paint = Paints(rng)
    color = paint("red", "orange", "yellow", "green", "teal", "blue", "white", "pink")
    glass, roof = paint("blue", "white", "teal"), rng.uniform(0.62, 0.78)
    back = rng.uniform(-0.62, -0.45)
    cabin = Part(
        "cabin",
        polygon((back - 0.12, -0.42), (back + 0.05, -roof), (0.22, -roof), (0.5, -0.42)),
        color,
        (
            Part(
                "rear window",
                polygon(
                    (back + 0.0, -0.43),
                    (back + 0.1, -roof + 0.05),
                    (-0.17, -roof + 0.05),
                    (-0.17, -0.43),
                ),
                glass,
            ),
            Part(
                "front window",
                polygon((-0.1, -0.43), (-0.1, -roof + 0.05), (0.19, -roof + 0.05), (0.4, -0.43)),
                glass,
            ),
        ),
    )
    handle = Part("handle", rectangle(-0.08, -0.36, 0.02, -0.31, 0.02), paint("gray", "black"))
    body = Part(
        "body",
        rectangle(-0.9, -0.46, 0.9, -0.14, 0.12),
        color,
        (
            Part("door", rectangle(-0.12, -0.44, 0.3, -0.17, 0.04), color, (handle,)),
            Part("headlight", ellipse(0.83, -0.33, 0.06, 0.07), paint("yellow", "white")),
            Part("tail light", rectangle(-0.9, -0.4, -0.82, -0.28, 0.02), paint("red", "orange")),
        ),
    )
    tire, hub = paint("black"), paint("gray", "white", "yellow", ball=True)
    wheels = [
        Part(
            "wheel",
            ellipse(x, -0.17, 0.18, 0.18),
            tire,
            (Part("hub", ellipse(x, -0.17, 0.1, 0.1), hub),),
        )
        for x in (-0.52, 0.53)
    ]
    return make_object("car", cabin, body, *wheels).moved(0, 0, 0.62)


def boat(rng: np.random.Generator) -> Part:
    """Hull with portholes, mast with sails and a flag."""
    paint = Paints(rng)
    stripe = paint("white", "red", "yellow")
    holes = tuple(
        Part("porthole", ellipse(x, -0.12, 0.04, 0.04), paint("blue", "yellow", "white"))
        for x in (-0.22, 0.0, 0.22)
    )
    hull = Part(
        "hull",
        polygon((-0.52, -0.22), (0.56, -0.22), (0.38, 0.02), (-0.36, 0.02)),
        paint(
            "brown",
            "red",
            "blue",
            "green",
            "black",
            "purple",
            texture=("plain", "wooden"),
            period=0.06,
        ),
        (
            Part(
                "gunwale",
                polygon((-0.52, -0.25), (0.56, -0.25), (0.53, -0.19), (-0.5, -0.19)),
                stripe,
            ),
            *holes,
        ),
    )
    mast = Part("mast", limb(0, -0.22, 0, -1.08, 0.04), paint("brown", "black"))
    cloth = paint(
        "white",
        "beige",
        "red",
        "yellow",
        "orange",
        texture=("plain", "striped"),
        period=0.2,
        angle=1.57,
    )
    emblem = Part("emblem", ellipse(0.17, -0.5, 0.08, 0.08), paint("red", "blue", "black"))
    sails = Part(
        "sails",
        None,
        cloth,
        (
            Part(
                "main sail", polygon((0.04, -1.0), (0.48, -0.32), (0.04, -0.32)), cloth, (emblem,)
            ),
            Part("jib", polygon((-0.04, -0.94), (-0.42, -0.32), (-0.04, -0.32)), cloth),
        ),
    )
    flag = Part(
        "flag",
        polygon((0.01, -1.1), (0.22, -1.05), (0.01, -0.99)),
        paint("red", "blue", "green", "yellow"),
    )
    return make_object("boat", mast, sails, flag, hull)


def balloon(rng: np.random.Generator) -> Part:
    """A hot-air balloon: envelope of gores, ropes, basket."""
    paint = Paints(rng)
    first, second = paint(*CLOTHES), paint(*CLOTHES)
    gores = []
    edges = np.cos(np.linspace(math.pi, 0, int(rng.integers(5, 8))))
    height = np.linspace(0, math.pi, 20)
    for k, (left, right) in enumerate(itertools.pairwise(edges)):
        rim = np.sin(height) ** 0.8 * 0.36
        y = -0.66 - 0.36 * np.cos(height)
        sides = np.concatenate([np.stack([left * rim, y], 1), np.stack([right * rim, y], 1)[::-1]])
        gores.append(Part("gore", sides, first if k % 2 else second))
    basket = Part(
        "basket",
        rectangle(-0.11, -0.16, 0.11, 0, 0.03),
        paint("brown", "beige", texture="checked", period=0.04),
        (Part("rim", rectangle(-0.12, -0.18, 0.12, -0.13, 0.02), paint("brown", "black")),),
    )
    ropes = pair("rope", limb(-0.1, -0.15, -0.17, -0.4, 0.02), paint("brown", "black"))
    return make_object("balloon", *ropes, Part("envelope", None, first, tuple(gores)), basket)


def rocket(rng: np.random.Generator) -> Part:
    """Fuselage with nose, portholes and a band; fins; flame in two colours."""
    paint = Paints(rng)
    hull, trim = paint("white", "gray", "yellow", "blue"), paint("red", "orange", "purple", "teal")
    holes = tuple(
        Part(
            "porthole",
            ellipse(0, y, 0.075, 0.075),
            trim,
            (
                Part(
                    "glass",
                    ellipse(0, y, 0.045, 0.045),
                    paint("blue", "white", "yellow", ball=True),
                ),
            ),
        )
        for y in ((-0.62, -0.42) if rng.random() < 0.5 else (-0.56,))
    )
    nose = Part(
        "nose",
        polygon((-0.115, -0.82), (-0.06, -0.95), (0, -1.02), (0.06, -0.95), (0.115, -0.82)),
        trim,
    )
    band = Part("band", rectangle(-0.17, -0.32, 0.17, -0.25), trim)
    fuselage = Part(
        "fuselage",
        polygon(
            (-0.12, -0.2),
            (-0.17, -0.3),
            (-0.17, -0.62),
            (-0.115, -0.82),
            (0.115, -0.82),
            (0.17, -0.62),
            (0.17, -0.3),
            (0.12, -0.2),
        ),
        hull,
        (*holes, band),
    )
    fins = pair("fin", polygon((-0.15, -0.42), (-0.34, -0.2), (-0.34, -0.08), (-0.12, -0.2)), trim)
    flame = Part(
        "flame",
        polygon((-0.1, -0.2), (-0.12, -0.1), (0, 0.1), (0.12, -0.1), (0.1, -0.2)),
        paint("orange", "red"),
        (
            Part(
                "core",
                polygon((-0.05, -0.2), (-0.06, -0.12), (0, 0.0), (0.06, -0.12), (0.05, -0.2)),
                paint("yellow", "white"),
            ),
        ),
    )
    return make_object("rocket", flame, *fins, fuselage, nose)
