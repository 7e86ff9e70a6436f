"""Robot, person, cat, butterfly, fish and snowman: each drawn anew from a random generator.

An object stands on y = 0 around x = 0 and is about one unit high; y grows downwards.
"""

from __future__ import annotations

import math

import numpy as np

from .canvas import Material, Part, ellipse, limb, polygon, rectangle
from .paints import CLOTHES, Paints, make_object, pair, star


def robot(rng: np.random.Generator) -> Part:
    """Head with eyes, mouth and aerial; torso with a panel of buttons; arms and legs."""
    paint = Paints(rng)
    metal = paint("gray", "blue", "teal", "orange", "yellow", "red")
    joint, glow = paint("gray", "black", "white"), paint("yellow", "red", "white", "green")
    pupil = paint("black", "blue")
    eyes = pair(
        "eye",
        ellipse(-0.09, -0.86, 0.065, 0.065),
        glow,
        Part("pupil", ellipse(-0.09, -0.86, 0.03, 0.03), pupil),
    )
    head = Part(
        "head",
        rectangle(-0.2, -0.98, 0.2, -0.7, rng.uniform(0.02, 0.12)),
        metal,
        (
            *eyes,
            Part(
                "mouth",
                rectangle(-0.1, -0.78, 0.1, -0.735, 0.015),
                paint("black", "red", "white", texture="striped", period=0.04),
            ),
        ),
    )
    aerial = Part(
        "aerial",
        limb(0, -0.96, 0, -1.1, 0.03),
        joint,
        (Part("tip", ellipse(0, -1.12, 0.045, 0.045), paint("red", "yellow", ball=True)),),
    )
    buttons = [
        Part(
            "button",
            ellipse(x, -0.47, 0.035, 0.035),
            paint("red", "green", "yellow", "blue", ball=True),
        )
        for x in (-0.09, 0.0, 0.09)
    ]
    panel = Part(
        "panel",
        rectangle(-0.15, -0.6, 0.15, -0.4, 0.03),
        paint("white", "black", "beige"),
        (
            *buttons,
            Part("screen", rectangle(-0.11, -0.575, 0.11, -0.52), paint("green", "blue", "teal")),
        ),
    )
    torso = Part("torso", rectangle(-0.24, -0.68, 0.24, -0.28, 0.05), metal, (panel,))
    lift = rng.uniform(-0.25, 0.3)
    arm = limb(-0.27, -0.6, -0.44, -0.42 - lift, 0.09)
    hand = Part("hand", ellipse(-0.45, -0.4 - lift, 0.075, 0.075), joint)
    arms = pair("arm", arm, metal, hand)
    legs = pair(
        "leg",
        limb(-0.12, -0.28, -0.13, -0.07, 0.11),
        joint,
        Part("foot", rectangle(-0.24, -0.08, -0.05, 0, 0.03), metal),
    )
    return make_object("robot", aerial, *arms, *legs, torso, head)


def person(rng: np.random.Generator) -> Part:
    """Head with hair and face, torso, arms with hands, legs with shoes."""
    paint = Paints(rng)
    skin = Material(tuple(np.array((236, 196, 164)) * rng.choice([1.0, 0.85, 0.65, 0.48])), "tan")
    hair_color, dark = paint("black", "brown", "yellow", "orange", "gray"), paint("black")
    eyes = pair("eye", ellipse(-0.05, -0.85, 0.022, 0.026), dark)
    mouth = Part("mouth", ellipse(0, -0.79, 0.05, 0.026, 0, math.pi), paint("red"))
    face = Part("face", ellipse(0, -0.84, 0.115, 0.125), skin, (*eyes, mouth))
    long_hair = rng.random() < 0.5
    hair = Part(
        "hair",
        ellipse(0, -0.86, 0.155, 0.165)
        if not long_hair
        else rectangle(-0.16, -1.02, 0.16, -0.66, 0.14),
        hair_color,
    )
    fringe = Part("fringe", ellipse(0, -0.9, 0.125, 0.1, math.pi, 2 * math.pi), hair_color)
    head = Part("head", None, skin, (hair, face, fringe))
    shirt = paint(
        *CLOTHES,
        texture=("plain", "striped", "dotted", "checked"),
        period=0.1,
        angle=rng.choice([0, 1.57]),
    )
    pants = paint("blue", "black", "gray", "brown", "green", "red")
    shoe = paint("black", "white", "red", "brown")
    lift = rng.uniform(-0.02, 0.3)
    arms = pair(
        "arm",
        limb(-0.15, -0.64, -0.29, -0.42 - lift, 0.09, 0.8),
        shirt,
        Part("hand", ellipse(-0.31, -0.39 - lift, 0.05, 0.05), skin),
    )
    badge = (
        ()
        if rng.random() < 0.5
        else (Part("badge", star(0.0, -0.55, 0.07), paint("yellow", "white", "red")),)
    )
    if rng.random() < 0.4:
        torso = Part(
            "dress",
            polygon((-0.13, -0.7), (0.13, -0.7), (0.26, -0.24), (-0.26, -0.24)),
            shirt,
            badge,
        )
    else:
        torso = Part("shirt", rectangle(-0.16, -0.71, 0.16, -0.36, 0.06), shirt, badge)
    legs = pair(
        "leg",
        limb(-0.08, -0.4, -0.09, -0.06, 0.13, 0.8),
        pants,
        Part("shoe", ellipse(-0.11, -0.03, 0.09, 0.045), shoe),
    )
    return make_object("person", *legs, *arms, torso, head)


def cat(rng: np.random.Generator) -> Part:
    """Sitting: head with ears, eyes, nose; body with belly and collar; tail, paws."""
    paint = Paints(rng)
    fur = paint(
        "orange",
        "gray",
        "black",
        "white",
        "brown",
        "beige",
        texture=("plain", "striped"),
        period=0.1,
        angle=1.57,
    )
    inner = paint("pink", "beige")
    ears = pair(
        "ear",
        polygon((-0.23, -0.8), (-0.2, -1.05), (-0.05, -0.9)),
        fur,
        Part("inner ear", polygon((-0.19, -0.84), (-0.18, -0.97), (-0.1, -0.89)), inner),
    )
    eyes = pair(
        "eye",
        ellipse(-0.09, -0.75, 0.05, 0.055),
        paint("green", "yellow", "blue"),
        Part("pupil", ellipse(-0.09, -0.75, 0.02, 0.045), paint("black")),
    )
    nose = Part("nose", polygon((-0.035, -0.68), (0.035, -0.68), (0, -0.64)), inner)
    head = Part(
        "head", None, fur, (*ears, Part("face", ellipse(0, -0.74, 0.25, 0.2), fur, (*eyes, nose)))
    )
    belly = Part("belly", ellipse(0, -0.24, 0.14, 0.2), paint("white", "beige"))
    collar = Part(
        "collar",
        rectangle(-0.17, -0.58, 0.17, -0.51, 0.03),
        paint("red", "blue", "green", "purple"),
        (Part("bell", ellipse(0, -0.5, 0.045, 0.045), paint("yellow", ball=True)),),
    )
    body = Part("body", ellipse(0, -0.29, 0.26, 0.31), fur, (belly,))
    side = rng.choice([-1, 1])
    tail = Part(
        "tail",
        limb(side * 0.2, -0.08, side * 0.48, -0.36, 0.1),
        fur,
        (Part("tail tip", ellipse(side * 0.48, -0.38, 0.065, 0.075), paint("white", "black")),),
    )
    paws = pair("paw", ellipse(-0.12, -0.03, 0.09, 0.055), fur)
    return make_object("cat", tail, body, *paws, collar, head)


def butterfly(rng: np.random.Generator) -> Part:
    """Four wings with spots around a body."""
    paint = Paints(rng)
    wing, spot = (
        paint("orange", "blue", "purple", "pink", "yellow", "red"),
        paint("white", "black", "yellow", "red"),
    )
    upper = pair(
        "upper wing",
        ellipse(-0.28, -0.68, 0.27, 0.24),
        wing,
        Part("spot", ellipse(-0.31, -0.7, 0.11, 0.1), spot),
    )
    lower = pair(
        "lower wing",
        ellipse(-0.22, -0.3, 0.2, 0.2),
        wing,
        Part("spot", ellipse(-0.24, -0.28, 0.075, 0.075), spot),
    )
    dark = paint("black", "brown")
    body = Part(
        "body",
        ellipse(0, -0.48, 0.055, 0.34),
        dark,
        (Part("head", ellipse(0, -0.84, 0.07, 0.07), dark),),
    )
    return make_object("butterfly", Part("wings", None, wing, (*lower, *upper)), body)


def fish(rng: np.random.Generator) -> Part:
    """Body with eye, gill and stripes; tail and fins."""
    paint = Paints(rng)
    skin = paint("orange", "blue", "yellow", "teal", "pink", "red")
    fin = paint("orange", "yellow", "purple", "red", "white")
    eye = Part(
        "eye",
        ellipse(0.3, -0.56, 0.075, 0.075),
        paint("white"),
        (Part("pupil", ellipse(0.31, -0.56, 0.035, 0.035), paint("black")),),
    )
    bands = tuple(
        Part(
            "stripe",
            rectangle(x, -0.74 + abs(x + 0.02) * 0.5, x + 0.11, -0.26 - abs(x + 0.02) * 0.5),
            paint("white", "yellow", "black"),
        )
        for x in (-0.25, 0.0)
    )
    body = Part("body", ellipse(0.04, -0.5, 0.46, 0.29), skin, (*bands, eye))
    tail = Part("tail", polygon((-0.36, -0.5), (-0.66, -0.76), (-0.58, -0.5), (-0.66, -0.24)), fin)
    top = Part("dorsal fin", polygon((-0.2, -0.74), (-0.05, -0.96), (0.2, -0.76)), fin)
    side = Part("fin", ellipse(0.08, -0.38, 0.12, 0.065), fin)
    return make_object("fish", tail, top, body, side)


def snowman(rng: np.random.Generator) -> Part:
    """Three balls, a hat with a band, a carrot, buttons, arms of twigs."""
    paint = Paints(rng)
    snow, coal, twig = paint("white", ball=True), paint("black"), paint("brown")
    eyes = pair("eye", ellipse(-0.06, -0.79, 0.025, 0.025), coal)
    carrot = Part("nose", polygon((0, -0.77), (0.17, -0.73), (0, -0.7)), paint("orange"))
    head = Part("head", ellipse(0, -0.75, 0.17, 0.17), snow, (*eyes, carrot))
    buttons = tuple(Part("button", ellipse(0, y, 0.032, 0.032), coal) for y in (-0.55, -0.45))
    scarf = Part(
        "scarf",
        rectangle(-0.16, -0.66, 0.16, -0.58, 0.03),
        paint("red", "green", "blue", "purple", texture="striped", period=0.05),
        (
            Part(
                "scarf end",
                rectangle(0.06, -0.62, 0.14, -0.42, 0.02),
                paint("red", "green", "yellow"),
            ),
        ),
    )
    hat = Part(
        "hat",
        rectangle(-0.12, -1.12, 0.12, -0.88),
        coal,
        (
            Part("band", rectangle(-0.12, -0.97, 0.12, -0.91), paint("red", "yellow", "blue")),
            Part("brim", rectangle(-0.2, -0.91, 0.2, -0.87, 0.015), coal),
        ),
    )
    arms = pair("arm", limb(-0.16, -0.5, -0.44, -0.68, 0.04), twig)
    return make_object(
        "snowman",
        *arms,
        Part("base", ellipse(0, -0.2, 0.28, 0.22), snow),
        Part("middle", ellipse(0, -0.5, 0.21, 0.18), snow, buttons),
        head,
        scarf,
        hat,
    )
