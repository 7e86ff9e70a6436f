"""Objects that may be in a photo, from its captions and what a language model makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .candidates import FindPhrases, normalize_name, parse_candidates


@dataclass(frozen=True)
class Candidate:
    """The name of an object that may be in a photo.

    Attributes:
        name: in lower case and singular.
        sources: where it comes from: pairs of the caption's number and the template's; None for the
            caption's own words.
    """

    name: str
    sources: tuple[tuple[int, int | None], ...]

    def as_json(self) -> dict[str, Any]:
        """``name`` and ``sources``, dicts with ``caption`` and ``template``."""
        sources = [{"caption": caption, "template": t} for caption, t in self.sources]
        return {"name": self.name, "sources": sources}


class CandidateFinder:
    """Asks a language model about captions, and reads its answers.

    Args:
        write: prompts -> the texts that follow on them, such as ``TextWriter``; None without
            templates.
        templates: prompts with a pair of braces for the caption; without any the captions' own
            words are all candidates.
        find_phrases: noun phrases of sentences, such as ``NounPhrases``.

    Raises:
        ValueError: if a template has no place for the caption, or nobody answers it.
    """

    def __init__(
        self,
        write: Callable[[Sequence[str]], list[str]] | None,
        templates: Sequence[str],
        find_phrases: FindPhrases,
    ) -> None:
        if templates and write is None:
            raise ValueError("templates need a language model")
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(f"a template has one {{}} for the caption, got '{template}'")
        self.templates = list(templates)
        self.write = write
        self._find_phrases = find_phrases

    def __call__(self, captions: Sequence[Sequence[str]]) -> list[list[Candidate]]:
        """Candidates of N photos, which go through the language model together.

        Args:
            captions: any number of sentences for each photo.

        Returns:
            For each photo its candidates, each name once; none where there are no captions. The
            captions' own come first.
        """
        prompts = [
            template.replace("{}", caption)
            for its_captions in captions
            for caption in its_captions
            for template in self.templates
        ]
        texts = iter(self.write(prompts) if prompts and self.write else [])
        found = []
        for its_captions in captions:
            sources: dict[str, list[tuple[int, int | None]]] = {}
            for number, caption in enumerate(its_captions):
                for name in caption_names(caption, self._find_phrases):
                    sources.setdefault(name, []).append((number, None))
            for number in range(len(its_captions)):
                for template in range(len(self.templates)):
                    for name in parse_candidates(next(texts), self._find_phrases):
                        sources.setdefault(name, []).append((number, template))
            found.append([Candidate(name, tuple(places)) for name, places in sources.items()])
        return found


def caption_names(caption: str, find_phrases: FindPhrases) -> list[str]:
    """The objects that a caption mentions: its phrases, then the nouns that these end in."""
    names = parse_candidates(caption, find_phrases)
    nouns = [normalize_name(name.split()[-1]) for name in names]
    return list(dict.fromkeys([*names, *filter(None, nouns)]))
