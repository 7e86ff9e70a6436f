"""What a caption says once its photo is mirrored, where that can be said.

A mirrored photo exchanges left and right, and makes nonsense of writing and of clock faces. The
words "left" and "right" have other meanings too ("food left on a plate", "right next to"); where
the meaning is not plain, the answer is that the caption does not stand a flip. Mistakes in that
direction cost a flip; in the other they would teach a falsehood.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)?")
#: A side, or a word built on one, that a flip exchanges.
_SIDED = re.compile(r"(left|right)(most|wards?|hand|side)?", re.IGNORECASE)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Marks of writing in the photo: quotes that open a quotation, digits, '#'.
_WRITING_MARKS = re.compile(
    r"[\"\u201c\u201d\u00ab\u00bb`#0-9]"
    r"|(?<![A-Za-z])['\u2018]|['\u2019](?![A-Za-z])"
)
_WRITING = _words(
    "say says said saying reads spell spells spelled spelling written writing writes letter letters"
    " lettering lettered word words wording text texts number numbers numbered numeral numerals"
    " digit digits initial initials inscribed inscription engraved labeled labelled titled entitled"
    " named"
)
#: "reading" is what a person does, unless one of these does it.
_READABLE = _words(
    "sign signs shirt banner plate label board screen poster billboard sticker clock time print"
)
#: Directions that are not called left and right, handedness, and short forms that may be either.
_FIXED = _words(
    "clockwise counterclockwise anticlockwise o'clock oclock east west eastern western eastbound"
    " westbound starboard southpaw lefty righty leftie handed handedness hander fielder winger lft"
    " lef rght rite rt lefthanded righthanded"
)
_FIXED_PHRASES = re.compile(
    r"\b(?:half past|quarter (?:to|past)|port side|right of way|right side (?:up|out))\b",
    re.IGNORECASE,
)
#: Capitals that are words rather than writing, or look the same in a mirror.
_CAPITALS = _words("TV TVS DVD CD PC LCD SUV BBQ ATM PJ US USA UK UFO VCR RV LED AC")

#: Before a side, these make it a place: prepositions, and words of position.
_PLACING = _words(
    "on to at from in of toward towards near far upper lower top bottom extreme very middle center"
    " front back rear second third fourth first its her his their our my your"
)
#: These too, but "looking right at" means straight.
_HEADING = _words(
    "facing faces pointing points looking looks leaning leans turned turning heading going moving"
)
#: Between a placing word and a side.
_FILLERS = _words("the a far very extreme upper lower top bottom front back rear middle center")
#: After a side, these make it a place whatever goes before.
_SIDE_NOUNS = _words(
    "side sides hand corner half edge end most part third foot feet leg legs arm arms wrist knee"
    " elbow shoulder ear eye eyes thigh ankle paw hoof wing wheel tire lane of"
)
#: "left" as a verb or a remainder: what goes before it.
_LEAVING_BEFORE = _words(
    "is are was were be been being has have had having get gets got just already recently never"
    " who that which it he she they we someone somebody nobody everyone what's that's who's it's"
    " he's she's there's"
)
#: ... what goes after it.
_LEAVING_AFTER = _words(
    "behind alone over out off open closed shut unattended ajar bare empty blank undone unmade"
    " uneaten unfinished untouched there here in on at by for from to under inside outside near"
    " after with without up down and a an the some his her its their them it this that these those"
    " food trash turn turns"
)
#: ... and amounts, of which something is left.
_AMOUNTS = _words(
    "one two three four few little some no not nothing none half only last any much many several"
    " all bit bite bites piece pieces slice slices crumbs leftovers minutes more remaining what"
)
#: "right" as "directly" or "correct": what goes after it.
_DIRECTLY_AFTER = _words(
    "behind next beside above below under underneath beneath over in on at by near after before now"
    " here there away up down off out through into inside outside against between where when while"
    " across along around past to with for turn turns"
)
#: ... what goes before it.
_DIRECTLY_BEFORE = _words(
    "is are was be being just all exactly not looks seems feels that's it's he's she's"
)
#: After a side, these leave it no place whatever goes before: "at a right angle".
_NEVER_PLACE = _words(
    "angle angles angled triangle answer amount size time way place kind choice order direction"
)
#: These do so unless a preposition goes before: "the left behind bag", "on the left behind him".
_RARELY_PLACE = _words("behind alone over open unattended")


def flip_caption(text: str) -> str | None:
    """The caption of the mirrored photo.

    Args:
        text: a caption in English.

    Returns:
        The text with "left" and "right" exchanged (also in "leftmost", "rightward", "left-hand"),
        letter case kept; the text itself where it names no side; None where the caption speaks of
        writing, numbers or other things that do not stand a flip, or where the meaning of "left" or
        "right" is not plain.
    """
    words = [match.group().lower() for match in _WORD.finditer(text)]
    if _has_writing(text, words) or _FIXED.intersection(words) or _FIXED_PHRASES.search(text):
        return None
    pieces, end = [], 0
    for number, match in enumerate(_WORD.finditer(text)):
        side = _SIDED.fullmatch(match.group())
        if side is None:
            continue
        if not side.group(2) and not _is_place(text, words, number, match.end()):
            return None
        pieces += [text[end : match.start()], _exchange(side.group(1)), side.group(2) or ""]
        end = match.end()
    return "".join([*pieces, text[end:]])


def _has_writing(text: str, words: list[str]) -> bool:
    if _WRITING_MARKS.search(text) or _WRITING.intersection(words):
        return True
    if "reading" in words and _READABLE.intersection(words):
        return True
    # A sentence in capitals is a manner of writing; "STOP" alone is what stands on a sign.
    if text.isupper() and len(words) > 2:
        return False
    capitals = [word for word in _WORD.findall(text) if word.isupper()]
    # "A", "I" and the mirror-proof letter of "T-shirt" are no writing.
    return any(word not in _CAPITALS and word not in ("A", "I", "T") for word in capitals)


def _is_place(text: str, words: list[str], number: int, end: int) -> bool:
    """Whether the word, "left" or "right", is plainly a side."""
    word = words[number]
    before = words[number - 1] if number else ""
    following = words[number + 1] if number + 1 < len(words) else ""
    # A comma or full stop ends what the side could go with.
    if re.match(r"\s*[,.;:!?]", text[end:]):
        following = ""
    if following in _NEVER_PLACE:
        return False
    if _placed(words, number) or _paired(words, number):
        return True
    if following in _RARELY_PLACE:
        return False
    if word == "left" and following in ("", "of") and _AMOUNTS.intersection(words[:number]):
        return False
    if before in _LEAVING_BEFORE | _DIRECTLY_BEFORE:
        # "What's left of it" is a remainder, "the dog is left of it" a place.
        return following in ("of", "hand") and "'" not in before and "what" not in words
    if before == "the" or before.endswith("'s") or following in _SIDE_NOUNS:
        return True
    if word == "right":
        return following not in _DIRECTLY_AFTER
    if before in _HEADING:
        return True
    return following not in _LEAVING_AFTER and not following.endswith(("ed", "ing"))


def _placed(words: list[str], number: int) -> bool:
    """Whether a word such as "on" stands before a side, perhaps with "the far" between."""
    position = number - 1
    while position >= 0 and words[position] in _FILLERS:
        # An article alone does not place a side; "top" does.
        if words[position] in _PLACING:
            return True
        position -= 1
    return position >= 0 and words[position] in _PLACING


def _paired(words: list[str], number: int) -> bool:
    """Whether a side belongs to "left and right", "left to right" and the like."""
    sides, joints = ("left", "right"), ("and", "or", "to")
    later, earlier = words[number + 1 : number + 3], words[max(0, number - 2) : number]
    return (len(later) == 2 and later[0] in joints and later[1] in sides) or (
        len(earlier) == 2 and earlier[0] in sides and earlier[1] in joints
    )


def _exchange(side: str) -> str:
    other = "right" if side.lower() == "left" else "left"
    if side.isupper():
        return other.upper()
    return other.capitalize() if side[0].isupper() else other
