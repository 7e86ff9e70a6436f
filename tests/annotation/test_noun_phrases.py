import pytest

from semsam.annotation.noun_phrases import NounPhrases


@pytest.fixture(scope="module")
def noun_phrases():
    return NounPhrases()


def test_phrases_of_each_caption_keep_their_words_and_order(noun_phrases):
    captions = ["A man riding the Red bike", "", "running fast", "a dog and it"]
    assert noun_phrases(captions) == [["A man", "the Red bike"], [], [], ["a dog", "it"]]


def test_no_captions_have_no_phrases(noun_phrases):
    assert noun_phrases([]) == []


def test_a_missing_model_is_named_with_how_to_get_one():
    with pytest.raises(RuntimeError, match=r"'en_core_web_xx' .* pip install en-core-web-sm"):
        NounPhrases("en_core_web_xx")
