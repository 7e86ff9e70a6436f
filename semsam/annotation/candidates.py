"""The objects that a language model's free text names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

from .english import DETERMINERS, is_activity, is_function_word, is_thing, singular

#: Sentences -> the noun phrases of each, such as ``semsam.annotation.noun_phrases.NounPhrases``.
FindPhrases = Callable[[Sequence[str]], list[list[str]]]

#: Longest name, in words and in letters.
MAX_WORDS = 4
MAX_LETTERS = 40
#: Marks of a list's items: ``1.``, ``(2)``, ``a)``, ``-``, ``*``.
_BULLET = re.compile(
    r"^\s*(?:[-+*>#\u2022\u00b7\u2013\u2014]+|\(?\d{1,3}[.):\]]|\(?[a-z][.)](?=\s))\s*",
    re.IGNORECASE,
)
#: Numbers of items that share a line.
_INLINE_NUMBER = re.compile(r"(?:^|(?<=\s))\(?\d{1,3}[.)]\s+")
#: What ends an item of a list, and a sentence.
_COMMA = re.compile(r"[,;]")
_SEPARATORS = re.compile(r"[:!?|/\\()\[\]{}\t\u2022\u2192=]+|\.+(?=\s|$)|\s[-\u2013\u2014]+\s|--+")
_CONJUNCTIONS = re.compile(r"\s(?:and|or|and/or|&|\+|plus|as well as)\s", re.IGNORECASE)
#: What a model thinks aloud, and marks of its templates.
_HIDDEN = re.compile(r"<think>.*?(?:</think>|$)|<[^<>\n]{0,40}>", re.DOTALL)
_UNSPOKEN = re.compile(r"[*_`~\"\u201c-\u201f\u00ab\u00bb#]+")
_NO_LETTER = re.compile(r"[^\w'\- ]+|_")


def parse_candidates(text: str, find_phrases: FindPhrases) -> list[str]:
    """The names of objects in what a language model wrote.

    Lists of any form are taken apart, sentences give their noun phrases. Articles, numbers and
    plurals go; what is no thing with a place in a photo (``"background"``, ``"happiness"``,
    ``"the photo"``) is left out. A name that comes out goes in again unchanged.

    Args:
        text: free text.
        find_phrases: noun phrases of sentences.

    Returns:
        Names in lower case and singular, in their order, each once; of ``MAX_WORDS`` words and
        ``MAX_LETTERS`` letters at most.
    """
    names: dict[str, None] = {}
    for sentence in _sentences(text):
        names.update(dict.fromkeys(filter(None, _names(sentence, find_phrases))))
    return list(names)


def _names(sentence: str, find_phrases: FindPhrases) -> list[str]:
    """Names of a list with commas or of a sentence; "" for what is none."""
    items = [item for item in map(_without_and, _COMMA.split(sentence)) if item]
    # An item that is no name by itself may be two: "salt and pepper".
    pieces = [[item] if _is_name_like(item) else _CONJUNCTIONS.split(item) for item in items]
    is_named = [all(map(_is_name_like, its)) for its in pieces]
    # Where most items are names it is a list, else words between commas may be anything.
    if 2 * sum(is_named) <= len(items):
        items, pieces, is_named = [sentence], [[]], [False]
    names: list[str] = []
    for item, its, named in zip(items, pieces, is_named, strict=True):
        names += its if named else _phrases(item, find_phrases)
    return [normalize_name(name) for name in names]


def _phrases(sentence: str, find_phrases: FindPhrases) -> list[str]:
    parts = [
        part
        for phrase in find_phrases([sentence])[0]
        for its in _COMMA.split(phrase)
        for part in _CONJUNCTIONS.split(its)
    ]
    return [part for part in parts if _is_name_like(part)]


def normalize_name(phrase: str) -> str:
    """A phrase without article, number and plural, in lower case; "" if it names no thing."""
    words = _words(phrase)
    while words and _is_before_name(words[0]):
        words = words[1:]
    if not words:
        return ""
    words = [*words[:-1], singular(words[-1])]
    name = " ".join(words)
    fits = len(words) <= MAX_WORDS and len(name) <= MAX_LETTERS and name[0].isalpha()
    # "e. g." is none.
    fits = fits and max(map(len, words)) > 1
    return name if fits and is_thing(words) and _is_name_like(name) else ""


def _sentences(text: str) -> Iterator[str]:
    """Lines and pieces of lines, each a sentence or a list with commas."""
    text = unicodedata.normalize("NFKC", _HIDDEN.sub("\n", text)).replace("\u2019", "'")
    for line in text.splitlines():
        for item in _INLINE_NUMBER.split(_BULLET.sub("", line)):
            yield from filter(str.strip, _SEPARATORS.split(_UNSPOKEN.sub("", item)))


def _without_and(item: str) -> str:
    """The last item of "a dog, a cat, and a tree" without its beginning."""
    return re.sub(r"^\s*(?:and|or|plus)\s", "", item, flags=re.IGNORECASE).strip()


def _is_name_like(part: str) -> bool:
    """Whether a piece of text is a name as it stands, with what may come before one."""
    words = _words(part)
    while words and _is_before_name(words[0]):
        words = words[1:]
    if not 0 < len(words) <= MAX_WORDS or any(map(is_function_word, words)):
        return False
    # "man holding phone" and "people walking" are said of a name; "stairs 20 feet high" too.
    return not any(is_activity(word) or not _has_letter(word) for word in words[1:])


def _is_before_name(word: str) -> bool:
    return word in DETERMINERS or not _has_letter(word)


def _has_letter(word: str) -> bool:
    return any(letter.isalpha() for letter in word)


def _words(phrase: str) -> list[str]:
    words = _NO_LETTER.sub(" ", phrase.casefold()).split()
    return [word for word in (word.strip("-'") for word in words) if word]
