"""What the English of captions needs: singulars, and words that name nothing one could point at."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_IRREGULAR = {
    "people": "person",
    "children": "child",
    "grandchildren": "grandchild",
    "men": "man",
    "teeth": "tooth",
    "feet": "foot",
    "geese": "goose",
    "mice": "mouse",
    "oxen": "ox",
    "buses": "bus",
    "gases": "gas",
    "lenses": "lens",
    "canvases": "canvas",
    "cacti": "cactus",
    "skis": "ski",
    "taxis": "taxi",
    "bikinis": "bikini",
    "kiwis": "kiwi",
    "menus": "menu",
    "gurus": "guru",
    "emus": "emu",
}
#: In -ves, of a word in -f or -fe; gloves, stoves and waves are of words in -ve.
_IRREGULAR |= {
    f"{stem}ves": f"{stem}{ending}"
    for ending, stems in (
        ("f", "bookshel cal el hal hoo lea loa scar shea shel thie wol wharve dwar"),
        ("fe", "housewi kni li midwi penkni wi"),
    )
    for stem in stems.split()
}
#: Whose -s is no plural's, or that have no singular that a picture shows.
_UNCHANGED = _words(
    """
    binoculars canvas chopsticks christmas clothes cosmos gas glasses goggles groceries
    headphones jeans leggings lens news overalls pajamas pants pliers pyjamas scissors series
    shorts species sunglasses sweatpants swimming-trunks tights tongs trousers tweezers
    underpants
    """
)
#: Whose singular is in -ie; that of berries is in -y.
_IN_IES = _words(
    """
    beanies birdies bowties brownies calories collies cookies eyries foodies genies hoodies
    magpies movies neckties pixies prairies rookies selfies smoothies sorties veggies zombies
    """
)
#: Whose singular is in -oe; that of potatoes is in -o.
_IN_OES = ("shoes", "canoes", "oboes", "floes", "tiptoes")
_MEN_THAT_ARE_NONE = _words("abdomen acumen omen ramen regimen semen specimen stamen")

#: Words that no name holds: where one stands there is more than a name.
_FUNCTION_WORDS = _words(
    """
    about above across after against ai along also although am among an and around as at be
    because been before behind being below beneath beside between beyond but by can cannot
    certainly could did do does doing down during each etc except for from get gets getting give
    gives go goes going had has have having he her here him himself his holding how i if in
    inside into is it it's its itself let like looking made make makes may me might must my near
    next no nor not of off ok okay on onto or our out outside over per playing please posing
    probably quite see seen shall she should shown shows since so sorry such sure taking than
    thanks that that's the their them themselves then there there's therefore these they this
    those though through throughout to together too toward towards under underneath unless until
    up upon us using very via was we wearing were what when where whether which while who whom
    whose why will with within without would yes you your yours
    """
)
#: Words that may stand before a name and are no part of it.
DETERMINERS = _words(
    """
    a all also an another any assorted both certain different dozen each eight eleven every few
    fewer first five four her his hundred hundreds its likely many maybe more most much multiple
    my nine no numerous one other others our own perhaps possible possibly probably same second
    seven several single six some such ten that the their these third this those thousand
    thousands three twelve two typical typically usually various visible your
    """
)
#: Colours and other words that say how a thing is: alone they name none.
_QUALITIES = _words(
    """
    beautiful big black blue blurry bright brown calm clean clear close cloudy cold colorful
    colourful cute dark deep delicious dirty dry empty female fluffy fresh golden gray green
    grey happy heavy hot huge indoor indoors large little long male modern nice old open
    optional outdoor outdoors pink pretty purple quiet red round rustic sad shallow shiny short
    silver small soft sunny tall tan thick thin tiny traditional unknown unspecified vibrant
    visible warm wet white wide wooden yellow young
    """
)
#: Last words of names that are no thing with a place in a photo.
_ABSTRACT = _words(
    """
    ability act action activity afternoon age aim air amount angle answer anybody anyone
    anything anywhere appearance arrangement aspect assistant atmosphere attention attribute
    background balance beauty beginning blur bunch caption case category cause center centre
    chance change choice class classification close-up closeup collection color colour
    combination comfort comma composition concept condition content context contrast couple
    culture day daytime deal depth description detail difference direction distance dozen effect
    element emotion end energy environment evening event everybody everyone everything example
    exception experience expression fact fear feature feeling focus foreground form format front
    fun function future genre group half happiness harmony height help history holiday hour hue
    idea image impression information instance instruction interaction interior item joy
    kilogram kilometer kind language left length level life lifestyle lighting list liter litre
    location look lot love luck majority manner material matter meaning meantime memory method
    middle minute mode moment month mood morning motion movement name nature need night nobody
    none noon note nothing noun number object observation occasion opinion option order
    orientation ounce output pair past pattern perspective phase photo photograph photography
    phrase picture plenty plural point portion pose position possibility posture pound presence
    present problem process prompt purpose quality quantity query question race range rank
    reason relation relationship response rest result right role row rule scenario scene scenery
    season selection sense sentence sequence series setting shape sharpness shot show side sight
    silence situation size skill slice snapshot somebody someone something somewhere sort sound
    space speech speed sport standing state step structure subject sum summary summer
    surrounding synonym task technique template tennis term text texture theme thing thought
    time title tone topic total truth type use value variety version vibe view visual way
    weather week weekend weight while width winter world year zoom
    """
)
#: Words that name a thing behind another word alone: ``tank top``, ``chess piece``.
_VAGUE = _words(
    """
    area art bit bottom character course design edge figure game job line part piece place play
    ride scale set shade spot story style surface symbol system top unit walk wind word work
    """
)
#: Words in -ing that are things, also behind another word; shorter ones are things anyway.
_THINGS_IN_ING = _words(
    """
    awning bedding being building carving ceiling clothing covering crossing drawing dressing
    duckling dumpling dwelling earring engraving fencing flooring frosting gosling herring
    landing lightning molding moulding opening painting parking piercing pudding railing roofing
    sapling scaffolding seating seedling siding spring starling stocking string stuffing topping
    tubing wedding wiring writing
    """
)


def singular(word: str) -> str:
    """The singular of a noun in lower case; any other word as it is, or nearly so.

    By rules and a table of exceptions; what it gives it leaves unchanged.
    """
    for _ in range(len(word) + 1):
        shorter = _singular(word)
        if shorter == word:
            break
        word = shorter
    return word


def _singular(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("men") and len(word) > 3 and word not in _MEN_THAT_ARE_NONE:
        return f"{word[:-3]}man"
    if len(word) <= 3 or not word.endswith("s") or word in _UNCHANGED:
        return word
    if word.endswith(("ss", "us", "is", "'s")):
        return word
    if word.endswith("ies"):
        return word[:-1] if len(word) == 4 or word in _IN_IES else f"{word[:-3]}y"
    if word.endswith(("ches", "shes", "sses", "xes", "zzes")):
        return word[:-2]
    # octopuses, walruses; not houses and blouses.
    if re.search(r".{2}[^aeio]uses$", word):
        return word[:-2]
    # potatoes; not shoes and canoes.
    if word.endswith("oes") and not (len(word) <= 4 or word.endswith(_IN_OES)):
        return word[:-2]
    return word[:-1]


def is_function_word(word: str) -> bool:
    """Whether no name holds a word: prepositions, pronouns, forms of "to be" and the like."""
    return word in _FUNCTION_WORDS or word.endswith(("'m", "'re", "'ve", "'ll", "n't"))


def is_thing(words: list[str]) -> bool:
    """Whether a name, in singular and lower case, can be of a thing that has a place in a photo."""
    last = words[-1]
    if last in _ABSTRACT or last in DETERMINERS or is_function_word(last):
        return False
    if len(words) == 1 and (last in _VAGUE or is_activity(last)):
        return False
    return last not in _QUALITIES


def is_activity(word: str) -> bool:
    """Whether a word in -ing says what is done, and not what it is done with."""
    return len(word) > 5 and word.endswith("ing") and word not in _THINGS_IN_ING
