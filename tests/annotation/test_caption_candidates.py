import pytest

from semsam.annotation.caption_candidates import CandidateFinder, caption_names
from semsam.annotation.noun_phrases import NounPhrases


@pytest.fixture(scope="module")
def noun_phrases():
    return NounPhrases()


class Listed:
    """Answers by the last words of the prompt."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    def __call__(self, prompts):
        self.asked.append(list(prompts))
        return [self.answers[prompt.split(": ")[0]] for prompt in prompts]


def test_candidates_are_the_captions_and_the_models_with_where_they_come_from(noun_phrases):
    write = Listed(objects="dog, street, a car", parts="1. paw\n2. wheels")
    find = CandidateFinder(write, ["objects: {}", "parts: {}"], noun_phrases)
    first, none, second = find([["A dog on a street", "two dogs"], [], ["{} trees"]])
    assert [(c.name, c.sources) for c in first] == [
        ("dog", ((0, None), (1, None), (0, 0), (1, 0))),
        ("street", ((0, None), (0, 0), (1, 0))),
        ("car", ((0, 0), (1, 0))),
        ("paw", ((0, 1), (1, 1))),
        ("wheel", ((0, 1), (1, 1))),
    ]
    assert none == []
    assert [c.name for c in second] == ["tree", "dog", "street", "car", "paw", "wheel"]
    assert first[2].as_json() == {
        "name": "car",
        "sources": [{"caption": 0, "template": 0}, {"caption": 1, "template": 0}],
    }
    # All photos together, and braces of a caption are its own.
    assert len(write.asked) == 1
    assert write.asked[0][-1] == "parts: {} trees"


def test_without_templates_the_captions_own_words_remain(noun_phrases):
    find = CandidateFinder(None, [], noun_phrases)
    assert [[c.name for c in photo] for photo in find([["a red car"], []])] == [
        ["red car", "car"],
        [],
    ]
    assert find([]) == []
    with pytest.raises(ValueError, match="need a language model"):
        CandidateFinder(None, ["{}"], noun_phrases)


def test_a_caption_names_its_phrases_and_the_nouns_that_they_end_in(noun_phrases):
    assert caption_names("A male tennis player in white shorts.", noun_phrases) == [
        "male tennis player",
        "white shorts",
        "player",
        "shorts",
    ]
    assert caption_names("The image is beautiful.", noun_phrases) == []


@pytest.mark.parametrize("template", ["objects", "{} and {}"])
def test_a_template_needs_one_place_for_the_caption(template, noun_phrases):
    with pytest.raises(ValueError, match=r"one \{\} for the caption"):
        CandidateFinder(Listed(), [template], noun_phrases)
