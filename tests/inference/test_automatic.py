import numpy as np
import pytest
from pycocotools import mask as coco_mask

from semsam import AutomaticMaskGenerator

PHOTO = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


def everything(model, **kwargs):
    """A generator whose filters are off."""
    options = {
        "points_per_side": 2,
        "pred_iou_thresh": None,
        "stability_score_thresh": None,
        "box_nms_thresh": 1.0,
        "crop_nms_thresh": 1.0,
        "min_mask_region_area": 0,
        "min_size": 64,
    }
    return AutomaticMaskGenerator(model, **{**options, **kwargs})


def test_each_grid_point_gives_its_mask_in_pixels_of_the_photo(disc_model):
    photo = np.zeros((32, 48, 3), dtype=np.uint8)
    records = everything(disc_model([10.0], [0.9])).generate(photo)
    assert [r["point_coords"] for r in records] == [[[12, 8]], [[36, 8]], [[12, 24]], [[36, 24]]]
    for record in records:
        mask = record["segmentation"]
        (x, y), (left, top, width, height) = record["point_coords"][0], record["bbox"]
        assert mask.shape == (32, 48)
        # Radius 10 at twice the photo's size.
        assert mask.sum() == record["area"] == pytest.approx(np.pi * 25, rel=0.15)
        assert left <= x <= left + width
        assert top <= y <= top + height
        ys, xs = mask.nonzero()
        assert [left, top, width, height] == [xs.min(), ys.min(), np.ptp(xs), np.ptp(ys)]
        assert record["crop_box"] == [0, 0, 48, 32]
        assert record["predicted_iou"] == pytest.approx(0.9)
        assert record["level"] == 1


def test_a_photo_larger_than_the_model_input_gets_masks_at_its_own_resolution(disc_model):
    photo = np.zeros((640, 640, 3), dtype=np.uint8)
    (record, *_) = everything(disc_model([10.0], [0.9])).generate(photo)
    assert record["segmentation"].shape == (640, 640)
    assert record["area"] == pytest.approx(np.pi * 100**2, rel=0.05)
    assert record["bbox"][2:] == pytest.approx([200, 200], abs=6)


def test_levels_select_masks_in_the_order_given(disc_model):
    model = disc_model([6.0, 12.0, 20.0], [0.7, 0.7, 0.7])
    records = everything(model, levels=[3, 1], points_per_side=1).generate(PHOTO)
    assert [r["level"] for r in records] == [3, 1]
    assert records[0]["area"] > 4 * records[1]["area"]


def test_all_levels_are_kept_by_default(tiny_model):
    records = everything(tiny_model).generate(PHOTO)
    assert len(records) == 2 * 2 * 6
    assert {r["level"] for r in records} == {1, 2, 3, 4, 5, 6}


def test_results_do_not_depend_on_the_batch_size(tiny_model):
    one = everything(tiny_model, points_per_batch=1).generate(PHOTO)
    all_at_once = everything(tiny_model, points_per_batch=64).generate(PHOTO)
    for a, b in zip(one, all_at_once, strict=True):
        assert a["predicted_iou"] == pytest.approx(b["predicted_iou"], abs=1e-5)
        assert np.mean(a["segmentation"] != b["segmentation"]) < 1e-3


def test_a_mask_needs_more_than_the_predicted_iou_threshold(disc_model):
    model = disc_model([6.0, 12.0], [0.5, 0.75])
    records = everything(model, pred_iou_thresh=0.5, points_per_side=1).generate(PHOTO)
    assert [r["level"] for r in records] == [2]


def test_an_unstable_mask_goes(disc_model):
    # Cut one pixel further in and out, a radius of 4 changes far more than one of 20.
    model = disc_model([4.0, 20.0], [0.9, 0.9])
    records = everything(model, stability_score_thresh=0.7, points_per_side=1).generate(PHOTO)
    assert [r["level"] for r in records] == [2]
    assert records[0]["stability_score"] == pytest.approx((19 / 21) ** 2, abs=0.02)


def test_an_empty_mask_passes_no_stability_threshold_not_even_zero(disc_model):
    model = disc_model([-5.0], [0.9])
    assert everything(model, stability_score_thresh=0.0).generate(PHOTO) == []
    (record, *_) = everything(model).generate(PHOTO)
    assert np.isnan(record["stability_score"])
    assert record["area"] == 0


def test_of_duplicates_the_best_stays(disc_model):
    model = disc_model([20.0, 20.5, 6.0], [0.8, 0.9, 0.7])
    records = everything(model, points_per_side=1, box_nms_thresh=0.7).generate(PHOTO)
    assert [r["level"] for r in records] == [2, 3]


def test_crops_find_more_and_report_photo_coordinates(disc_model):
    model = disc_model([5.0], [0.9])
    records = everything(model, crop_n_layers=1, crop_overlap_ratio=0.25).generate(PHOTO)
    crops = {tuple(r["crop_box"]) for r in records}
    assert (0, 0, 96, 64) in crops
    assert len(crops) == 5
    for record in records:
        (x, y), (left, top, width, height) = record["point_coords"][0], record["bbox"]
        assert record["segmentation"].shape == (64, 96)
        assert left <= x <= left + width + 1
        assert top <= y <= top + height + 1
    # The same disc of the input is smaller in the photo when a crop is enlarged.
    areas = {crop: r["area"] for r in records for crop in [tuple(r["crop_box"])]}
    assert max(a for crop, a in areas.items() if crop != (0, 0, 96, 64)) < areas[0, 0, 96, 64] / 2


def test_between_crops_the_smaller_one_wins(disc_model):
    photo = np.zeros((300, 400, 3), dtype=np.uint8)
    options = {"points_per_side": 3, "crop_n_layers": 1}
    both = everything(disc_model([6.0], [0.9]), **options).generate(photo)
    one = everything(disc_model([6.0], [0.9]), **options, crop_nms_thresh=0.0).generate(photo)
    whole = [r["crop_box"] == [0, 0, 400, 300] for r in both]
    assert sum(whole) == 9
    assert sum(r["crop_box"] == [0, 0, 400, 300] for r in one) < 9
    assert sum(r["crop_box"] != [0, 0, 400, 300] for r in one) >= 9


def test_a_mask_cut_by_its_crop_is_dropped(disc_model):
    # Discs so large that every mask fills its crop.
    records = everything(disc_model([1000.0], [0.9]), crop_n_layers=1).generate(PHOTO)
    assert {tuple(r["crop_box"]) for r in records} == {(0, 0, 96, 64)}


@pytest.mark.parametrize("output_mode", ["coco_rle", "uncompressed_rle"])
def test_run_lengths_hold_the_same_masks(tiny_model, output_mode):
    masks = everything(tiny_model).generate(PHOTO)
    encoded = everything(tiny_model, output_mode=output_mode).generate(PHOTO)
    for mask, record in zip(masks, encoded, strict=True):
        rle = record["segmentation"]
        if output_mode == "uncompressed_rle":
            rle = coco_mask.frPyObjects(rle, *rle["size"])
        assert np.array_equal(coco_mask.decode(rle).astype(bool), mask["segmentation"])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("output_mode", "polygon"),
        ("points_per_side", 0),
        ("points_per_batch", 0),
        ("crop_n_points_downscale_factor", 0),
        ("crop_n_layers", -1),
        ("levels", []),
    ],
)
def test_an_option_out_of_range_is_rejected(tiny_model, option, value):
    with pytest.raises(ValueError, match=option):
        AutomaticMaskGenerator(tiny_model, **{option: value})


@pytest.mark.parametrize("level", [0, 7])
def test_a_level_that_the_model_does_not_have_is_rejected(tiny_model, level):
    with pytest.raises(ValueError, match="1 to 6"):
        everything(tiny_model, levels=[level]).generate(PHOTO)
