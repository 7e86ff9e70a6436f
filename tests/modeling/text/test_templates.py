import pytest

from semsam.modeling.text.templates import (
    IMAGENET,
    TEMPLATES,
    clean_name,
    clean_names,
    fill_templates,
    read_templates,
)


def test_the_sentences_of_imagenet_are_those_of_open_clip():
    open_clip = pytest.importorskip("open_clip")
    assert [t.replace("{}", "x") for t in IMAGENET] == [
        template("x") for template in open_clip.OPENAI_IMAGENET_TEMPLATES
    ]


@pytest.mark.parametrize("key", TEMPLATES)
def test_a_list_is_called_by_the_number_of_its_sentences(key):
    assert len(set(read_templates([key]))) == int(key)


def test_a_sentence_of_one_s_own_stands_beside_a_list():
    assert read_templates(["2", "my {}"]) == ("a {}", "{}", "my {}")


@pytest.mark.parametrize("entries", [[], ["a photo"], ["a {} and a {}"]])
def test_a_sentence_without_one_place_for_the_name_is_rejected(entries):
    with pytest.raises(ValueError, match=r"templates need one \{\} each"):
        read_templates(entries)


def test_a_name_with_braces_stands_as_it_is():
    assert fill_templates(["{x}", "b"], ["a {}", "{}"]) == ["a {x}", "{x}", "a b", "b"]


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("sky-other-merged", "sky"),
        ("door-stuff", "door"),
        ("wall-brick", "wall-brick"),
        ("bow_(weapon)", "bow (weapon)"),
        ("dog:front_leg", "dog front leg"),
    ],
)
def test_names_of_coco_and_lvis_become_words(name, cleaned):
    assert clean_name(name) == cleaned


def test_names_that_would_become_alike_stay_as_they_are():
    names = ["wall", "wall-other-merged", "sky-other-merged", "door_stuff"]
    assert clean_names(names) == ["wall", "wall-other-merged", "sky", "door stuff"]
