"""Metrics of captions: BLEU, METEOR, ROUGE-L, CIDEr-D, SPICE, noun and verb recall, exact match.

The columns of "Segment and Caption Anything" (CVPR 2024), section 4, and how they were computed
there: PTB tokens, corpus BLEU (closest length), ROUGE-L with beta 1.2, CIDEr-D with document
frequencies of the evaluated references, METEOR 1.5, SPICE 1.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from . import caption_java
from .caption_java import Score
from .content_recall import (
    CONTENT_COLUMNS,
    ENCODER_COLUMNS,
    FUZZY_COLUMNS,
    SPACY_MODEL,
    SentenceEncoder,
    Similarity,
    SpacyTagger,
    content_recall,
    vector_similarity,
)

BLEU_COLUMNS = ("B@1", "B@2", "B@3", "B@4")
#: In the order of the paper's tables.
PAPER_COLUMNS = (
    *("CIDEr-D", "METEOR", "SPICE", *BLEU_COLUMNS, "ROUGE-L"),
    *("Noun", "Verb", "Noun (F)", "Verb (F)"),
)
COLUMNS = (*PAPER_COLUMNS, "Exact", *ENCODER_COLUMNS)


@dataclass(frozen=True)
class CaptionScores:
    """Metrics of N captions.

    Attributes:
        scores: by column, in the order of ``COLUMNS``; shares of 1 (CIDEr-D: up to 10).
        missing: by column that was asked for and could not be computed, why.
    """

    scores: dict[str, Score]
    missing: dict[str, str]


class CaptionScorer:
    """Computes the columns that are asked for; says at once which of them cannot be had.

    Args:
        columns: of ``COLUMNS``.
        spice_jars: folder with the jars that SPICE needs; "" looks for them where
            :func:`caption_java.find_spice` says.
        spacy_model: what finds nouns and verbs, and has the word vectors for their fuzzy forms.

    Raises:
        ValueError: if a column is unknown, none is asked for, or ``spice_jars`` lacks the jars.
        RuntimeError: if Java or pycocoevalcap is missing and a column needs them, or no column
            can be computed.
    """

    def __init__(
        self,
        columns: Sequence[str] = PAPER_COLUMNS,
        spice_jars: str = "",
        spacy_model: str = SPACY_MODEL,
    ) -> None:
        if unknown := [name for name in columns if name not in COLUMNS]:
            raise ValueError(f"unknown caption metrics {unknown}; known: {', '.join(COLUMNS)}")
        if not columns:
            raise ValueError(f"no caption metric is asked for; known: {', '.join(COLUMNS)}")
        self.columns = tuple(name for name in COLUMNS if name in columns)
        #: By column, why it cannot be computed here.
        self.missing: dict[str, str] = {}
        if self._wants(set(COLUMNS) - set(CONTENT_COLUMNS)):
            # Half a day of predictions should not end with this error.
            caption_java.tokenize(["a caption"])
        self._spice: list[str] = []
        if self._wants({"SPICE"}):
            try:
                self._spice = caption_java.find_spice(spice_jars)
            except RuntimeError as reason:
                self._miss({"SPICE"}, reason)
        self._tagger: SpacyTagger | None = None
        self._encoder: SentenceEncoder | None = None
        if self._wants(CONTENT_COLUMNS):
            self._load_tagger(spacy_model)
        if not self._wants(COLUMNS):
            raise RuntimeError("; ".join(f"{n}: {reason}" for n, reason in self.missing.items()))

    def __call__(
        self, candidates: Sequence[str], references: Sequence[Sequence[str]]
    ) -> CaptionScores:
        """Measure captions.

        Args:
            candidates: N captions, as predicted; "" scores 0.
            references: at least one for each of them.

        Raises:
            ValueError: if there is no candidate, one without reference, or the numbers differ.
            RuntimeError: if a Java program fails.
        """
        check_pairs(candidates, references)
        found: dict[str, Score] = {}
        if self._wants(set(COLUMNS) - set(CONTENT_COLUMNS)):
            found |= self._token_scores(*tokenize_pairs(candidates, references))
        if self._tagger:
            similarities: dict[str, Similarity] = {}
            if self._wants(FUZZY_COLUMNS):
                similarities["(F)"] = vector_similarity
            if self._encoder:
                similarities["(MiniLM)"] = self._encoder.similarity
            found |= content_recall(candidates, references, self._tagger, similarities)
        return CaptionScores({n: found[n] for n in self.columns if n in found}, dict(self.missing))

    def _token_scores(self, candidates: list[str], references: list[list[str]]) -> dict[str, Score]:
        found: dict[str, Score] = {}
        if self._wants({"CIDEr-D"}):
            found["CIDEr-D"] = cider_d(candidates, references)
        if self._wants({"METEOR"}):
            found["METEOR"] = caption_java.meteor(candidates, references)
        if self._spice:
            found["SPICE"] = caption_java.spice(candidates, references, self._spice)
        if self._wants(BLEU_COLUMNS):
            found |= zip(BLEU_COLUMNS, bleu(candidates, references), strict=True)
        if self._wants({"ROUGE-L"}):
            found["ROUGE-L"] = rouge_l(candidates, references)
        if self._wants({"Exact"}):
            found["Exact"] = exact_match(candidates, references)
        return found

    def _load_tagger(self, model: str) -> None:
        try:
            self._tagger = SpacyTagger(model)
        except RuntimeError as reason:
            self._miss(CONTENT_COLUMNS, reason)
            return
        if not self._tagger.has_vectors:
            self._miss(
                FUZZY_COLUMNS,
                f"the spaCy model '{model}' has no word vectors; the paper's is {SPACY_MODEL}; "
                f"{', '.join(ENCODER_COLUMNS)} are other metrics that need none",
            )
        if self._wants(ENCODER_COLUMNS):
            try:
                self._encoder = SentenceEncoder()
            except RuntimeError as reason:
                self._miss(ENCODER_COLUMNS, reason)

    def _wants(self, columns: Iterable[str]) -> bool:
        return any(name in self.columns and name not in self.missing for name in columns)

    def _miss(self, columns: Iterable[str], reason: object) -> None:
        self.missing |= {name: str(reason) for name in columns if name in self.columns}


def check_pairs(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Refuse what no metric is defined for.

    Raises:
        ValueError: as :class:`CaptionScorer` says; names the row.
    """
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} candidates, but references of {len(references)}")
    if not candidates:
        raise ValueError("there is no candidate to measure")
    for row, (candidate, wanted) in enumerate(zip(candidates, references, strict=True)):
        if isinstance(wanted, str) or not all(isinstance(t, str) for t in (candidate, *wanted)):
            raise ValueError(
                f"row {row}: a candidate is a str and its references a list of str, got "
                f"{candidate!r} and {wanted!r}"
            )
        if not wanted:
            raise ValueError(f"row {row}: the candidate '{candidate}' has no reference")


def tokenize_pairs(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Candidates and references by :func:`caption_java.tokenize`, in one run."""
    flat = [*candidates, *(reference for wanted in references for reference in wanted)]
    tokens = caption_java.tokenize(flat)
    ends = accumulate((len(wanted) for wanted in references), initial=len(candidates))
    return tokens[: len(candidates)], [tokens[start:end] for start, end in pairwise(ends)]


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
    """BLEU-1 to BLEU-4 of tokenized captions, with the closest reference's length."""
    from pycocoevalcap.bleu.bleu import Bleu

    corpus, each = Bleu(4).compute_score(*_by_row(candidates, references), verbose=0)
    return [Score(float(c), [float(v) for v in e]) for c, e in zip(corpus, each, strict=True)]


def rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """ROUGE-L of tokenized captions, beta 1.2; the corpus value is the mean."""
    from pycocoevalcap.rouge.rouge import Rouge

    return _score(*Rouge().compute_score(*_by_row(candidates, references)))


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """CIDEr-D of tokenized captions (n 4, sigma 6), 0 to 10; the corpus value is the mean.

    Document frequencies are those of the given references: a caption's value depends on the rest
    of the corpus.
    """
    from pycocoevalcap.cider.cider import Cider

    return _score(*Cider().compute_score(*_by_row(candidates, references)))


def exact_match(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """Share of tokenized captions that equal one of their references."""
    each = [float(c in wanted) for c, wanted in zip(candidates, references, strict=True)]
    return Score(sum(each) / len(each), each)


def _by_row(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and candidates in pycocoevalcap's form."""
    return dict(enumerate(map(list, references))), {i: [c] for i, c in enumerate(candidates)}


def _score(corpus: float, each: Iterable[float]) -> Score:
    return Score(float(corpus), [float(value) for value in each])
