import numpy as np
import pytest

pytest.importorskip("skimage")

from semsam.data.datasets.hierarchy import segment_hierarchy


def card_with_a_disc():
    """A bright card on a dark table, with a red disc on it."""
    rng = np.random.default_rng(0)
    image = np.full((120, 160, 3), 40.0)
    card, disc = np.zeros((2, 120, 160), bool)
    card[20:100, 30:120] = True
    y, x = np.ogrid[:120, :160]
    disc[(y - 60) ** 2 + (x - 70) ** 2 < 26**2] = True
    image[card], image[disc] = (200, 200, 180), (200, 40, 40)
    return (image + rng.normal(0, 2, image.shape)).clip(0, 255).astype(np.uint8), card, disc


def best_iou(masks, wanted):
    return max((m & wanted).sum() / (m | wanted).sum() for m in masks)


def test_wholes_and_parts_are_both_found():
    image, card, disc = card_with_a_disc()
    masks = segment_hierarchy(image, num_superpixels=120).masks
    assert best_iou(masks, disc) > 0.85
    assert best_iou(masks, card) > 0.9
    assert best_iou(masks, card & ~disc) > 0.85


def test_masks_are_nested_or_disjoint_and_parents_hold_their_children():
    image, _, _ = card_with_a_disc()
    result = segment_hierarchy(image, num_superpixels=120)
    for i, (mask, parent) in enumerate(zip(result.masks, result.parents, strict=True)):
        for other in result.masks[:i]:
            shared = (mask & other).sum()
            assert shared in (0, mask.sum())
        if parent is not None:
            assert not (mask & ~result.masks[parent]).any()
    assert any(parent is not None for parent in result.parents)


def test_no_two_masks_are_nearly_equal():
    image, _, _ = card_with_a_disc()
    masks = segment_hierarchy(image, num_superpixels=120, max_masks=100, min_area=0.0).masks
    flat = masks.reshape(len(masks), -1).astype(float)
    shared = flat @ flat.T
    union = flat.sum(axis=1)[:, None] + flat.sum(axis=1) - shared
    assert len(masks) > 50
    assert (shared / union - np.eye(len(masks))).max() < 0.8


def test_sizes_and_number_stay_within_what_was_asked():
    image, _, _ = card_with_a_disc()
    masks = segment_hierarchy(image, 120, max_masks=5, min_area=0.02, max_area=0.5).masks
    assert 0 < len(masks) <= 5
    assert all(0.02 <= mask.mean() <= 0.5 for mask in masks)


def test_a_photo_without_edges_gives_no_error():
    blank = np.full((60, 60, 3), 128, np.uint8)
    masks = segment_hierarchy(blank, num_superpixels=16).masks
    assert masks.shape[1:] == (60, 60)


def test_an_image_that_is_not_rgb_bytes_is_rejected():
    with pytest.raises(ValueError, match="uint8 RGB"):
        segment_hierarchy(np.zeros((20, 20), np.uint8))
