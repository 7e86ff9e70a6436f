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
#: What ends a part of a line, whatever stands around it.
_SEPARATORS = re.compile(
    r"[,;:!?|/\\()\[\]{}\t\u2022\u2192=]+|\.+(?=\s|$)|\s[-\u2013\u2014]+\s|--+"
)
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
    for part in _parts(text):
        name = normalize_name(part)
        if _is_name_like(part):
            found = [name]
        elif all(_is_name_like(piece) for piece in _CONJUNCTIONS.split(part)):
            found = [normalize_name(piece) for piece in _CONJUNCTIONS.split(part)]
        else:
            phrases = find_phrases([part])[0]
            found = [normalize_name(phrase) for phrase in phrases if _is_name_like(phrase)]
        names.update(dict.fromkeys(filter(None, found)))
    return list(names)


def normalize_name(phrase: str) -> str:
    """A phrase without article, number and plural, in lower case; "" if it names no thing."""
    words = _words(phrase)
    while words and _is_before_name(words[0]):
        words = words[1:]
    if not words:
        return ""
    words = [*words[:-1], singular(words[-1])]
    name = " ".join(words)
    fits = len(words) <= MAX_WORDS and 2 <= len(name) <= MAX_LETTERS and name[0].isalpha()
    return name if fits and is_thing(words) and _is_name_like(name) else ""


def _parts(text: str) -> Iterator[str]:
    """Items of lists and pieces of sentences, as they are written."""
    text = unicodedata.normalize("NFKC", _HIDDEN.sub("\n", text)).replace("\u2019", "'")
    for line in text.splitlines():
        bare = _BULLET.sub("", line)
        for item in _INLINE_NUMBER.split(bare):
            for part in _SEPARATORS.split(_UNSPOKEN.sub("", item)):
                # Of "dog, cat, and a tree" the last part.
                part = re.sub(r"^\s*(?:and|or|plus)\s", "", part, flags=re.IGNORECASE).strip()
                if part:
                    yield part


def _is_name_like(part: str) -> bool:
    """Whether a piece of text is a name as it stands, with what may come before one."""
    words = _words(part)
    while words and _is_before_name(words[0]):
        words = words[1:]
    if not 0 < len(words) <= MAX_WORDS or any(map(is_function_word, words)):
        return False
    # "man holding phone" and "people walking" are said of a name.
    return not any(is_activity(word) for word in words[1:])


def _is_before_name(word: str) -> bool:
    return word in DETERMINERS or not any(letter.isalpha() for letter in word)


def _words(phrase: str) -> list[str]:
    words = _NO_LETTER.sub(" ", phrase.casefold()).split()
    return [word for word in (word.strip("-'") for word in words) if word]
