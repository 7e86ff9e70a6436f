import numpy as np
import pytest
from pycocotools import mask as coco_mask
from skimage.measure import label

from semsam.inference.amg_utils import (
    crop_boxes,
    cut_by_crop,
    cut_logits,
    drop_small_islands,
    encode_mask,
    fill_small_holes,
    mask_box,
    point_grid,
)


def random_mask(seed, size=(23, 31)):
    """Blobs with holes and islands of many sizes, some at the border, in a part of the image."""
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.random((8, 11)) < 0.6, np.ones((3, 3), dtype=bool))[: size[0], : size[1]]
    mask ^= rng.random(size) < 0.1
    mask[:, : rng.integers(0, 20)] = False
    mask[: rng.integers(0, 12)] = False
    return mask


def reference(mask, min_area, holes):
    """The definition, over the whole image."""
    regions = label(mask ^ holes, connectivity=2)
    areas = np.bincount(regions.ravel())[1:]
    small = [i + 1 for i, area in enumerate(areas) if area < min_area]
    if not small:
        return mask, False
    if holes:
        return np.isin(regions, [0, *small]), True
    large = [i + 1 for i in range(len(areas)) if i + 1 not in small] or [areas.argmax() + 1]
    return np.isin(regions, large), True


@pytest.mark.parametrize("min_area", [1, 4, 15, 80, 400, 1000])
@pytest.mark.parametrize("seed", range(8))
def test_clean_up_inside_the_box_equals_clean_up_of_the_whole_image(seed, min_area):
    mask = random_mask(seed)
    for function, holes in ((fill_small_holes, True), (drop_small_islands, False)):
        ours, changed = function(mask, min_area)
        expected, expected_change = reference(mask, min_area, holes)
        assert np.array_equal(ours, expected)
        assert changed == expected_change


def test_clean_up_leaves_its_input_and_empty_masks_alone():
    mask = random_mask(0)
    before = mask.copy()
    fill_small_holes(mask, 15)
    drop_small_islands(mask, 15)
    assert np.array_equal(mask, before)
    empty = np.zeros((30, 30), dtype=bool)
    assert not drop_small_islands(empty, 10)[0].any()
    assert not fill_small_holes(empty, 10)[0].any()


def test_grid_points_are_the_centres_of_cells_x_first():
    assert point_grid(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_crops_cover_the_image_and_overlap_as_asked():
    boxes = crop_boxes((100, 150), 1, 0.2)
    assert boxes[0] == ((0, 0, 150, 100), 0)
    # Overlap 0.2 * 100 = 20: two crops of (150 + 20) / 2 = 85 by (100 + 20) / 2 = 60.
    assert [box for box, _ in boxes[1:]] == [
        (0, 0, 85, 60), (0, 40, 85, 100), (65, 0, 150, 60), (65, 40, 150, 100)
    ]  # fmt: skip
    assert {layer for _, layer in boxes[1:]} == {1}
    assert len(crop_boxes((100, 150), 2, 0.2)) == 1 + 4 + 16


def test_only_a_box_at_an_inner_edge_of_its_crop_is_cut():
    crop, image = (0, 0, 85, 60), (100, 150)
    assert not cut_by_crop((0, 0, 40, 30), crop, image)
    assert cut_by_crop((30, 5, 80, 30), crop, image)
    assert not cut_by_crop((0, 0, 150, 100), (0, 0, 150, 100), image)


def test_a_box_ends_at_the_last_pixel():
    mask = np.zeros((10, 12), dtype=bool)
    assert mask_box(mask) == (0, 0, 0, 0)
    mask[3, 4] = True
    assert mask_box(mask) == (4, 3, 4, 3)
    mask[7, 11] = True
    assert mask_box(mask) == (4, 3, 11, 7)


def test_stability_compares_two_cuts():
    logits = np.array([[2.0, 0.5, -0.5, -2.0]], dtype=np.float32)
    mask, stability = cut_logits(logits, 1.0)
    assert mask.tolist() == [[True, True, False, False]]
    assert stability == pytest.approx(1 / 3)


def test_stability_of_nothing_is_not_a_number():
    mask, stability = cut_logits(np.full((2, 2), -5, dtype=np.float32), 1.0)
    assert not mask.any()
    assert np.isnan(stability)


@pytest.mark.parametrize("seed", range(4))
def test_both_run_length_forms_give_the_mask_back(seed):
    mask = random_mask(seed)
    if seed == 0:
        mask[0, 0] = True
    assert np.array_equal(coco_mask.decode(encode_mask(mask, "coco_rle")).astype(bool), mask)
    runs = encode_mask(mask, "uncompressed_rle")
    assert sum(runs["counts"]) == mask.size
    packed = coco_mask.frPyObjects(runs, *runs["size"])
    assert np.array_equal(coco_mask.decode(packed).astype(bool), mask)
