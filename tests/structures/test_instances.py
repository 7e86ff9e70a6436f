import pytest
import torch

from semsam.structures import Boxes, Instances


def make() -> Instances:
    return Instances(
        (4, 6),
        scores=torch.tensor([0.1, 0.2, 0.3]),
        boxes=Boxes(torch.arange(12.0).view(3, 4)),
        names=["a", "b", "c"],
    )


def test_fields_are_attributes():
    instances = make()
    instances.classes = torch.tensor([1, 2, 3])
    assert instances.has("classes")
    assert instances.classes.tolist() == [1, 2, 3]
    instances.remove("classes")
    assert not instances.has("classes")


def test_an_unknown_field_is_an_attribute_error_with_its_name():
    with pytest.raises(AttributeError, match="no field 'masks'"):
        _ = make().masks


def test_a_field_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"'classes' has 2 entries,.* have 3"):
        make().classes = torch.tensor([1, 2])


@pytest.mark.parametrize(
    ("item", "names"),
    [
        (0, ["a"]),
        (-1, ["c"]),
        (slice(1, None), ["b", "c"]),
        (torch.tensor([True, False, True]), ["a", "c"]),
        (torch.tensor([2, 0]), ["c", "a"]),
        (torch.tensor([], dtype=torch.long), []),
    ],
)
def test_selection_applies_to_every_field(item, names):
    picked = make()[item]
    assert picked.names == names
    assert len(picked.boxes) == len(picked.scores) == len(names)
    assert picked.image_size == (4, 6)


@pytest.mark.parametrize("index", [3, -4])
def test_an_index_past_the_end_is_refused(index):
    with pytest.raises(IndexError, match="of 3"):
        make()[index]


def test_instances_of_one_image_are_joined_field_by_field():
    joined = Instances.cat([make(), make()[:1]])
    assert joined.names == ["a", "b", "c", "a"]
    assert joined.boxes.tensor.shape == (4, 4)
    assert joined.scores.shape == (4,)


def test_instances_of_two_frames_are_not_joined():
    with pytest.raises(ValueError, match="one image size"):
        Instances.cat([Instances((4, 6)), Instances((4, 7))])


def test_moving_keeps_fields_that_cannot_move():
    moved = make().to(torch.float64)
    assert moved.scores.dtype == torch.float64
    assert moved.names == ["a", "b", "c"]


def test_instances_without_fields_are_empty():
    assert len(Instances((4, 6))) == 0
