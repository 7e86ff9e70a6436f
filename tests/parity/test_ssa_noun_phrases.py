"""Noun phrases of captions, against those that Semantic-Segment-Anything finds."""

import json

import pytest

from semsam.annotation.noun_phrases import NounPhrases

from .golden import GOLDEN

PATH = GOLDEN / "ssa/noun_phrases.json"


@pytest.mark.skipif(not PATH.is_file(), reason=f"no {PATH}")
@pytest.mark.parametrize("what", [pytest.param(0, id="ssa/noun_phrases")])
def test_noun_phrases_are_the_original_s(what):
    items = json.loads(PATH.read_text())["items"]
    found = NounPhrases()([item["caption"] for item in items])
    assert found == [item["noun_phrases"] for item in items]
