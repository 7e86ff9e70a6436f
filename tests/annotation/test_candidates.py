import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semsam.annotation.candidates import (
    MAX_LETTERS,
    MAX_WORDS,
    normalize_name,
    parse_candidates,
)
from semsam.annotation.noun_phrases import NounPhrases

NOUN_PHRASES = NounPhrases()

#: What language models write, and the objects in it.
WRITTEN = {
    "a list with commas": ("dog, cat, traffic light", ["dog", "cat", "traffic light"]),
    "the last of a list": ("a dog, two cats, and a tree.", ["dog", "cat", "tree"]),
    "numbers": ("1. Dog\n2. Stop signs\n3) a tree\n(4) sky", ["dog", "stop sign", "tree", "sky"]),
    "numbers in one line": ("1. dog 2. cat 3. the red car", ["dog", "cat", "red car"]),
    "bullets": ("- a horse\n* Saddle\n\u2022 the reins", ["horse", "saddle", "rein"]),
    "letters": ("a) spoon\nb) fork", ["spoon", "fork"]),
    "markdown": ("* **Wheel**: `round`\n* __Door__", ["wheel", "door"]),
    "quotes": ("\u201cstop sign\u201d, 'post', \"sky\"", ["stop sign", "post", "sky"]),
    "a heading": ("Here is a list of objects in the image:\n- cup\n- plate", ["cup", "plate"]),
    "a label": ("Objects: man, horse, beach", ["man", "horse", "beach"]),
    "explanations": ("Car: a red car\nTree: in the background", ["car", "red car", "tree"]),
    "brackets": ("lamp (on the desk), chair [wooden]", ["lamp", "desk", "chair"]),
    "repetitions": (" bed, chair, bed, beds, Bed, the bed, bed", ["bed", "chair"]),
    "conjunctions": ("salt and pepper", ["salt", "pepper"]),
    "a sentence": ("There is a dog and a cat in the picture.", ["dog", "cat"]),
    "what people do": ("A man riding a wave on a surfboard", ["man", "wave", "surfboard"]),
    "a sentence with a list": (
        "The kitchen has a refrigerator, a stove, and a microwave.",
        ["kitchen", "refrigerator", "stove", "microwave"],
    ),
    "groups": ("a group of people, a pair of skis, a slice of pizza", ["person", "ski", "pizza"]),
    "plurals": (
        "women, knives, buses, cookies, berries, benches, glasses, children",
        ["woman", "knife", "bus", "cookie", "berry", "bench", "glasses", "child"],
    ),
    "no objects": ("happiness, the background, beautiful, red, it, five, the scene", []),
    "doings": ("snowboarding, playing tennis, parking meter", ["parking meter"]),
    "vague alone": ("tank top, top, chess piece, piece", ["tank top", "chess piece"]),
    "phrases with a conjunction": (
        "A kitchen with a refrigerator, stove and some chairs with cushions",
        ["kitchen", "refrigerator", "stove", "chair", "cushion"],
    ),
    "numbers inside": ("stairs 20 feet high\npropeller 2", ["stair", "propeller"]),
    "qualities at the end": ("eyes wide open, the color red, traffic light", ["traffic light"]),
    "someone": ("someone, everything, a pound, dining area", ["dining area"]),
    "a sentence between commas": (
        "Bedroom scene with a bookcase, blue comforter and window.",
        ["bedroom", "bookcase", "blue comforter", "window"],
    ),
    "a list with a sentence in it": (
        "bear, paw, the door of a car, eyes, e. g.",
        ["bear", "paw", "door", "car", "eye"],
    ),
    "pronouns": ("They are his, and this is hers.", []),
    "thoughts": ("<think>a zebra may be there</think>horse", ["horse"]),
    "unfinished thoughts": ("horse <think>or a zebra", ["horse"]),
    "marks of a chat": ("<|im_start|>assistant\ndog<|im_end|>", ["dog"]),
    "hyphens": ("t-shirt, teddy-bears", ["t-shirt", "teddy-bear"]),
    "owners": ("the man's hat, a woman\u2019s shoes", ["man's hat", "woman's shoe"]),
    "numbers alone": ("1. 2. 3. 42, 3.5", []),
    "signs alone": ("---, ***, ..., ???", []),
    "nothing": ("  \n ", []),
    "names too long": ("a very long and winding description that never comes to an end " * 3, []),
    "other letters": ("caf\u00e9 table, jalape\u00f1os", ["caf\u00e9 table", "jalape\u00f1o"]),
    "its task": (
        "List the objects in the photo, separated by commas: cat, dog\nAnswer with single nouns.",
        ["cat", "dog"],
    ),
    "politeness": (
        "Sure! Here are ten things you could point at in this picture:\n1. A cat\n2. The keyboard",
        ["cat", "keyboard"],
    ),
    "a model that speaks of itself": (
        "As an AI language model, I cannot see images, but typical objects include: bench, tree.",
        ["bench", "tree"],
    ),
    "explanations after bullets": (
        "might be present in the image:\n\n* **Cat** - the main subject\n* **Laptop** - below it",
        ["cat", "laptop"],
    ),
    "sentences after numbers": (
        "1. Cat: The cat is the main subject of the photo. It has fur, ears, and a tail.",
        ["cat", "fur", "ear", "tail"],
    ),
    "guesses": (
        "The image likely contains a cat, a laptop, possibly a desk or table, and maybe a window.",
        ["cat", "laptop", "desk", "table", "window"],
    ),
    "json": ('{"objects": ["cat", "laptop"]}', ["cat", "laptop"]),
    "choices": ("cat/kitten; laptop", ["cat", "kitten", "laptop"]),
    "a refusal": ("I'm sorry, but as an AI I can't see the image.", []),
}  # fmt: skip


@pytest.mark.parametrize(("text", "names"), WRITTEN.values(), ids=WRITTEN.keys())
def test_objects_are_found_in(text, names):
    assert parse_candidates(text, NOUN_PHRASES) == names


def test_a_caption_on_which_nothing_can_be_seen_has_no_phrase_normalized_to_a_name():
    phrases = ["the", "", "a picture", "two", "of the", "5", "-", "a red"]
    assert [normalize_name(phrase) for phrase in phrases] == [""] * len(phrases)


SHORT = 'a the two of and is \'s it x 7 -ing s es , ; : . \n - * 1. 2) (x) "sky" \u2022'
LONG = "dog dogs red car cars holding women light's image in glass glasses buses running tables"
WORDS = st.sampled_from([*SHORT.split(" "), *LONG.split(" ")])
TEXTS = st.text(max_size=60) | st.lists(WORDS, max_size=14).map(" ".join)


@settings(max_examples=150)
@given(TEXTS)
def test_names_of_any_text_are_whole_short_and_each_once(text):
    names = parse_candidates(text, NOUN_PHRASES)
    assert len(set(names)) == len(names) <= len(re.findall(r"\w+", text))
    for name in names:
        assert name == name.strip() == name.casefold()
        assert 2 <= len(name) <= MAX_LETTERS
        assert len(name.split(" ")) <= MAX_WORDS
        assert not re.search(r"[\s.,;:]{2}|[.,;:!?\n\t|]", name)


@settings(max_examples=150)
@given(TEXTS)
def test_a_name_goes_in_again_unchanged(text):
    names = parse_candidates(text, NOUN_PHRASES)
    for name in names:
        assert parse_candidates(name, NOUN_PHRASES) == [name]
    assert parse_candidates(", ".join(names), NOUN_PHRASES) == names


@settings(max_examples=50)
@given(st.lists(WORDS, max_size=8).map(" ".join))
def test_saying_it_twice_says_no_more(text):
    assert parse_candidates(f"{text}\n{text}", NOUN_PHRASES) == parse_candidates(text, NOUN_PHRASES)
