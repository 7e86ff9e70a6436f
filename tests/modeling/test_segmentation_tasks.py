import pytest
import torch

from semsam.modeling.segmentation_tasks import panoptic_segments, semantic_classes, top_instances

THING, STUFF = 0, 1
IS_THING = torch.tensor([True, False])


def halves():
    """Logits of the left half, the right half, and the whole of a 4 x 8 image."""
    logits = torch.full((3, 4, 8), -8.0)
    logits[0, :, :4] = logits[1, :, 4:] = logits[2] = 8.0
    return logits


@pytest.mark.parametrize("chunk", [1, 7, 2**24])
def test_each_pixel_has_the_class_of_the_query_that_covers_it(chunk):
    probabilities = torch.tensor([[0.9, 0.0], [0.0, 0.8], [0.1, 0.1]])
    classes = semantic_classes(probabilities, halves(), chunk)
    assert classes.tolist() == [[THING] * 4 + [STUFF] * 4] * 4


def test_pixels_are_classified_exactly_in_mixed_precision():
    torch.manual_seed(0)
    probabilities, logits = torch.rand(5, 30), torch.randn(5, 8, 9)
    expected = torch.einsum("qc,qhw->chw", probabilities, logits.sigmoid()).argmax(dim=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(semantic_classes(probabilities, logits), expected)


def test_instances_are_pairs_of_query_and_class_by_probability_and_mask():
    logits = halves()
    # Less certain of its pixels.
    logits[1] = logits[1] / 8 * 0.5
    found = top_instances(torch.tensor([[0.5, 0.3], [0.6, 0.0], [0.0, 0.0]]), logits, 10)
    assert found["queries"].tolist() == [0, 1, 0]
    assert found["classes"].tolist() == [THING, THING, STUFF]
    assert found["scores"].tolist() == pytest.approx([0.5, 0.6 * 0.6225, 0.3], abs=1e-3)
    assert len(top_instances(torch.rand(3, 2), logits, 2)["scores"]) == 2


def test_panoptic_segments_share_no_pixel_and_stuff_of_a_class_is_one():
    probabilities = torch.tensor([[0.9, 0.0], [0.8, 0.0], [0.0, 0.1]])
    ids, segments = panoptic_segments(probabilities, halves(), IS_THING)
    assert ids[0].tolist() == [1] * 4 + [2] * 4
    assert [(s["id"], s["isthing"], s["area"]) for s in segments] == [(1, True, 16), (2, True, 16)]
    probabilities = torch.tensor([[0.0, 0.9], [0.0, 0.8], [0.0, 0.1]])
    ids, segments = panoptic_segments(probabilities, halves(), IS_THING)
    assert ids.unique().tolist() == [1]
    assert [(s["isthing"], s["category_id"], s["area"]) for s in segments] == [(False, STUFF, 32)]


def test_a_query_that_keeps_little_of_its_mask_is_dropped():
    probabilities = torch.tensor([[0.9, 0.0], [0.0, 0.0], [0.8, 0.0]])
    ids, segments = panoptic_segments(probabilities, halves(), IS_THING)
    # The right half, which only the dropped query covers, belongs to none.
    assert ids[0].tolist() == [1] * 4 + [0] * 4
    assert len(segments) == 1


def test_nothing_is_found_where_nothing_is_more_probable():
    probabilities = torch.tensor([[0.3, 0.0], [0.0, 0.2], [0.4, 0.05]])
    ids, segments = panoptic_segments(probabilities, halves(), IS_THING)
    assert not ids.any()
    assert segments == []
