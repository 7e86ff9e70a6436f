import pytest
from hypothesis import given
from hypothesis import strategies as st

from semsam.annotation.english import singular

PLURALS = {
    "bus": "buses", "house": "houses", "walrus": "walruses", "blouse": "blouses",
    "potato": "potatoes", "shoe": "shoes", "canoe": "canoes", "toe": "toes", "piano": "pianos",
    "cookie": "cookies", "tie": "ties", "pony": "ponies", "leaf": "leaves", "glove": "gloves",
    "wife": "wives", "scarf": "scarves", "wave": "waves", "fence": "fences", "box": "boxes",
    "dish": "dishes", "watch": "watches", "dress": "dresses", "fireman": "firemen",
    "woman": "women", "person": "people", "foot": "feet", "mouse": "mice", "ski": "skis",
    "lens": "lenses", "zebra": "zebras",
}  # fmt: skip
SINGULARS = (
    "glass", "grass", "bus", "tennis", "chess", "scissors", "jeans", "glasses", "gas", "canvas",
    "specimen", "omen", "sheep", "man's", "as", "", "octopus", "iris", "pants",
)  # fmt: skip


@pytest.mark.parametrize(("one", "many"), PLURALS.items())
def test_a_plural_has_its_singular(one, many):
    assert singular(many) == one


@pytest.mark.parametrize("word", [*PLURALS, *SINGULARS])
def test_a_singular_stays_as_it_is(word):
    assert singular(word) == word


@given(st.text("aeimnosuvxzh", max_size=9))
def test_a_singular_has_no_other_singular(word):
    assert singular(singular(word)) == singular(word)
