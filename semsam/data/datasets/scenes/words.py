"""Phrases for the regions of a scene."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .canvas import Part

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_PLURALS = ("wings", "sails")
_IRREGULAR = {"person": "people", "fish": "fish", "leaf": "leaves", "butterfly": "butterflies"}


def plural(noun: str) -> str:
    """More than one of it."""
    head, _, last = noun.rpartition(" ")
    ending = "es" if last.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{head} {_IRREGULAR.get(last, last + ending)}".strip()


def join_words(words: Sequence[str]) -> str:
    """``"a, b and c"``."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def with_article(phrase: str) -> str:
    """Put "a" or "an" before a phrase, nothing before a plural."""
    if phrase.endswith(_PLURALS):
        return phrase
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def look(part: Part) -> str:
    """Colour, texture and name: "red brick roof"."""
    material = part.material
    if material is None:
        return part.name
    texture = "" if material.texture == "plain" else f"{material.texture} "
    return f"{material.color_name} {texture}{part.name}"


def thing_caption(part: Part) -> str:
    """An object with its first parts, a group with its number, or stuff with its colour."""
    if part.kind == "group":
        return f"{_NUMBERS[len(part.parts)]} {part.name}"
    if part.kind == "stuff":
        return f"the {look(part)}"
    counts = Counter(look(p) for p in part.parts)
    details = [
        with_article(phrase) if n == 1 else f"{_NUMBERS[n]} {plural(phrase)}"
        for phrase, n in list(counts.items())[-2:]
    ]
    return f"{with_article(part.name)} with {join_words(details)}"


def part_caption(part: Part, thing: Part | None) -> str:
    """A part by its look and the object it belongs to."""
    owner = "" if thing is None else f" of a {thing.name}"
    return f"the {look(part)}{owner}"
