import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_codes

from semsam.data.run_length import RunLengthMasks, to_coco_code


def random_masks(seed, number, height, width):
    """Blobs, with an empty and a full mask among them."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((number, -(-height // 3), -(-width // 3))) < 0.5
    masks = coarse.repeat(3, axis=1).repeat(3, axis=2)[:, :height, :width]
    masks[0], masks[1] = False, True
    return masks


SHAPES = st.tuples(st.integers(0, 99), st.integers(2, 5), st.integers(1, 40), st.integers(1, 40))


@given(SHAPES)
@settings(max_examples=50, deadline=None)
def test_coco_codes_and_bitmaps_give_the_same_masks(shape):
    masks = random_masks(*shape)
    size = masks.shape[1:]
    compressed = [mask_codes.encode(np.asfortranarray(m.astype(np.uint8))) for m in masks]
    assert np.array_equal(RunLengthMasks.from_coco(compressed, size).decode(), masks)
    assert np.array_equal(RunLengthMasks.from_bitmaps(masks).decode(), masks)


def test_uncompressed_counts_are_read():
    runs = RunLengthMasks.from_coco([{"size": [2, 3], "counts": [1, 3, 2]}], (2, 3))
    assert runs.decode()[0].tolist() == [[False, True, False], [True, True, False]]


@pytest.mark.parametrize(
    ("counts", "size"),
    [
        ([1, 3], [2, 3]),
        ([8, -2], [2, 3]),
        ([6], [3, 2]),
        ("", [2, 3]),
        ("\x01", [2, 3]),
        ("oooo", [2, 3]),
        ("o" * 40 + "0", [2, 3]),
    ],
)
def test_a_code_that_does_not_fit_the_image_is_rejected(counts, size):
    with pytest.raises(ValueError, match=r"mask 0|run-length text"):
        RunLengthMasks.from_coco([{"size": size, "counts": counts}], (2, 3))


def test_a_label_map_becomes_one_mask_an_id_in_the_order_asked():
    labels = np.random.default_rng(0).choice([0, 7, 300000, 5], size=(13, 17))
    runs = RunLengthMasks.from_labels(labels, [300000, 5, 12])
    assert np.array_equal(runs.decode(), np.stack([labels == 300000, labels == 5, labels == 12]))
    assert len(RunLengthMasks.from_labels(labels, [])) == 0


@given(SHAPES)
@settings(max_examples=50, deadline=None)
def test_questions_asked_of_runs_have_the_answers_of_bitmaps(shape):
    masks = random_masks(*shape)
    runs = RunLengthMasks.from_bitmaps(masks)
    assert runs.areas.tolist() == masks.sum(axis=(1, 2)).tolist()
    rng = np.random.default_rng(shape[0])
    for index, mask in enumerate(masks):
        ys, xs = np.nonzero(mask)
        box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0, 0, 0, 0]
        assert runs.boxes[index].tolist() == box
        for position in rng.integers(0, len(xs), 5) if len(xs) else []:
            assert runs.pixel(index, int(position)) == (xs[position], ys[position])
    for x, y in zip(rng.integers(0, shape[3], 5), rng.integers(0, shape[2], 5), strict=True):
        assert runs.containing(x, y).tolist() == np.flatnonzero(masks[:, y, x]).tolist()


def test_a_pixel_beyond_the_last_is_rejected():
    runs = RunLengthMasks.from_bitmaps(np.ones((1, 2, 2), dtype=bool))
    with pytest.raises(ValueError, match="4 pixels"):
        runs.pixel(0, 4)


def test_selected_masks_keep_their_order():
    masks = random_masks(1, 5, 20, 30)
    runs = RunLengthMasks.from_bitmaps(masks).select(np.array([1, 3, 4]))
    assert np.array_equal(runs.decode(), masks[[1, 3, 4]])
    assert runs.areas.tolist() == masks[[1, 3, 4]].sum(axis=(1, 2)).tolist()


@pytest.mark.parametrize("turn", ["as coded", "flipped", "enlarged"])
def test_a_window_holds_all_pixels_of_a_mask_and_no_others(turn):
    masks = RunLengthMasks.from_bitmaps(np.random.default_rng(0).random((4, 9, 7)) < 0.1)
    if turn == "flipped":
        masks = masks.flip()
    if turn == "enlarged":
        masks = masks.resample(np.arange(18) // 2, np.arange(14) // 2, (18, 14))
    for index, mask in enumerate(masks.decode()):
        x, y, window = masks.window(index)
        width, height = window.shape
        assert window.sum() == mask.sum()
        assert np.array_equal(mask.T[x : x + width, y : y + height], window)
        assert window.any(axis=0)[[0, -1]].all()
        assert window.any(axis=1)[[0, -1]].all()


def test_the_window_of_a_mask_without_pixels_is_empty():
    masks = RunLengthMasks.from_bitmaps(np.zeros((1, 3, 3), dtype=bool))
    assert masks.window(0)[2].shape == (0, 0)


def test_polygons_counts_and_text_of_a_mask_are_one_code():
    mask = np.zeros((20, 30), dtype=np.uint8, order="F")
    mask[5:15, 10:20] = 1
    encoded = mask_codes.encode(mask)
    text = {"size": [20, 30], "counts": encoded["counts"].decode()}
    runs = np.diff(np.flatnonzero(np.diff(mask.ravel("F"), prepend=2, append=2)))
    counts = {"size": [20, 30], "counts": runs.tolist()}
    polygon = [[10, 5, 20, 5, 20, 15, 10, 15]]
    for segmentation in (encoded, text, counts, polygon):
        assert to_coco_code(segmentation, (20, 30)) == text


def test_a_segmentation_that_is_no_mask_of_the_image_is_refused():
    with pytest.raises(ValueError, match="no polygon"):
        to_coco_code([], (20, 30))
    with pytest.raises(ValueError, match=r"\[20, 30\], the image \[30, 20\]"):
        to_coco_code({"size": [20, 30], "counts": [600]}, (30, 20))
