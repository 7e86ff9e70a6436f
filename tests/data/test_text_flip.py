import pytest

from semsam.data.text_flip import flip_caption

SWAPPED = [
    ("man on the left", "man on the right"),
    ("Left hand of the man", "Right hand of the man"),
    ("LEFT SIDE OF THE ROOM", "RIGHT SIDE OF THE ROOM"),
    ("the woman's right arm", "the woman's left arm"),
    ("his right foot is up", "his left foot is up"),
    ("right leg of the elephant", "left leg of the elephant"),
    ("a dog to the left of the cat", "a dog to the right of the cat"),
    ("girl left of the tree", "girl right of the tree"),
    ("the dog is left of the tree", "the dog is right of the tree"),
    ("a hand on the left-hand side", "a hand on the right-hand side"),
    ("the lefthand drawer", "the righthand drawer"),
    ("leftmost zebra", "rightmost zebra"),
    ("left most zebra", "right most zebra"),
    ("car moving rightward", "car moving leftward"),
    ("arrow pointing leftwards", "arrow pointing rightwards"),
    ("top-left window, bottom-right door", "top-right window, bottom-left door"),
    ("second from left", "second from right"),
    ("third person from the right", "third person from the left"),
    ("from left to right, two men", "from right to left, two men"),
    ("left to right", "right to left"),
    ("man looking right", "man looking left"),
    ("a horse facing left", "a horse facing right"),
    ("far right", "far left"),
    ("front right wheel of the bus", "front left wheel of the bus"),
    ("the upper left corner", "the upper right corner"),
    ("person on the right next to the tree", "person on the left next to the tree"),
    ("man on left in blue", "man on right in blue"),
    ("guy left", "guy right"),
    ("right guy", "left guy"),
    ("left zebra", "right zebra"),
    ("the left one", "the right one"),
    ("left wing of the plane", "right wing of the plane"),
    ("a man with his left and right hands raised", "a man with his right and left hands raised"),
    ("a sign with an arrow pointing to the right", "a sign with an arrow pointing to the left"),
    ("A cup on the left.", "A cup on the right."),
    ("the boy at right, in a red shirt", "the boy at left, in a red shirt"),
    ("right side of the TV", "left side of the TV"),
    ("all men on the left", "all men on the right"),
    ("zebra left of center", "zebra right of center"),
]
#: The first of these is plain, its mirror image is not: "facing right near" may mean straight.
SWAPPED_ONE_WAY = [("a horse facing left near a fence", "a horse facing right near a fence")]
KEPT = [
    "a brown dog",
    "A man in a T-shirt",
    "man reading a book",
    "bright lights above the upright piano",
    "leftover pizza in a box",
    "a copyright mark",
    "the woman's hat",
    "a stop sign on a pole",
    "a clock on the wall",
    "woman texting on a TV",
    "TV",
    "",
]
UNSAFE = [
    # Writing and numbers.
    'sign that says "stop"',
    "sign that says stop",
    "the sign reads one way",
    "sign reading no parking",
    "a shirt with the number seven",
    "player 24 on the left",
    "number on the jersey",
    "white letters on a blue sign",
    "the words on the bus",
    "STOP on a red sign",
    "STOP",
    "a letter B on the cap",
    "the B on the cap",
    "a sign with 'exit' on it",
    "writing on the wall",
    "street sign named elm",
    # "left" as a verb or a remainder.
    "door left open",
    "the luggage left behind",
    "a bag left on the bench",
    "food left in the bowl",
    "pizza left over from lunch",
    "left over food",
    "the left behind suitcase",
    "the man left the room",
    "two slices of cake left",
    "a few slices left of the pizza",
    "fries, some left, in a basket",
    "one slice left on the plate",
    "no food left",
    "a toy was left by a child",
    "bike left unattended",
    "cars left parked on grass",
    "the train that left",
    "shoes left there",
    "what's left of the sandwich, nothing more",
    "door opened and left ajar",
    # "right" as directly, correct, an angle.
    "dog right behind the man",
    "cat right next to a window",
    "right above the sink",
    "the lamp is right beside the bed",
    "right in the middle",
    "walls at a right angle",
    "man looking right at the camera",
    "driving on the right way",
    "going the wrong way, not right",
    "the picture is right side up",
    "everything is all right",
    "it is right there",
    # Clocks, rotation, handedness, compass.
    "hands turning clockwise",
    "counterclockwise arrow",
    "the clock shows three o'clock",
    "clock at half past ten",
    "a left-handed batter",
    "right handed pitcher",
    "a lefty at bat",
    "the west side of the building",
    "starboard of the ship",
    "guy on lft",
]


@pytest.mark.parametrize(("text", "expected"), SWAPPED + SWAPPED_ONE_WAY)
def test_sides_are_exchanged(text, expected):
    assert flip_caption(text) == expected


@pytest.mark.parametrize(("text", "expected"), SWAPPED)
def test_two_flips_give_the_caption_back(text, expected):
    assert flip_caption(expected) == text


@pytest.mark.parametrize("text", KEPT)
def test_a_caption_without_a_side_stays_as_it_is(text):
    assert flip_caption(text) == text


@pytest.mark.parametrize("text", UNSAFE)
def test_a_caption_that_does_not_stand_a_flip_gives_none(text):
    assert flip_caption(text) is None
