from itertools import combinations

import numpy as np
import pytest
from PIL import ImageFont

from semsam.utils.visualizer import (
    Visualizer,
    distinct_color,
    draw_everything,
    draw_grid,
    draw_levels,
)

GREY = np.full((60, 80, 3), 128, dtype=np.uint8)


def square(x0, y0, x1, y1, size=(60, 80)):
    mask = np.zeros(size, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_colors_of_neighbours_in_the_series_are_far_apart():
    colors = np.array([distinct_color(i) for i in range(12)], dtype=float)
    assert min(np.abs(a - b).max() for a, b in combinations(colors, 2)) > 25
    assert colors.min() >= 0
    assert colors.max() <= 255


def test_a_mask_is_tinted_and_the_rest_of_the_photo_is_not():
    picture = Visualizer(GREY).draw_masks([square(20, 10, 50, 40)], [(255, 0, 0)], alpha=0.5).image
    red, green, blue = picture[25, 35].astype(int)
    assert red == pytest.approx(128 + 64, abs=1)
    assert green == blue == pytest.approx(64, abs=1)
    assert np.array_equal(picture[25, 60], GREY[25, 60])
    assert np.array_equal(picture[55, 35], GREY[55, 35])


def test_drawing_leaves_the_photo_alone():
    photo = GREY.copy()
    Visualizer(photo).fade().draw_masks([square(5, 5, 30, 30)]).draw_points([[4, 4]])
    assert np.array_equal(photo, GREY)


def test_a_part_is_drawn_over_its_whole():
    part, whole = square(30, 20, 40, 30), square(10, 5, 70, 55)
    picture = Visualizer(GREY).draw_masks([part, whole], [(255, 0, 0), (0, 0, 255)], alpha=1).image
    assert picture[25, 35].tolist() == [255, 0, 0]
    assert picture[10, 20].tolist() == [0, 0, 255]


def test_the_picture_is_scaled_and_what_is_drawn_with_it():
    picture = Visualizer(GREY, scale=3).draw_masks([square(20, 10, 50, 40)], alpha=1).image
    assert picture.shape == (180, 240, 3)
    assert picture[75, 105].tolist() == list(distinct_color(0))
    assert picture[130, 200].tolist() == [128, 128, 128]


def test_a_click_is_green_where_it_asks_and_red_where_it_excludes():
    picture = Visualizer(GREY, scale=2).draw_points([[20, 30], [60, 30]], [1, 0]).image
    asks, excludes = picture[60, 40].astype(int), picture[60, 120].astype(int)
    assert asks[1] > asks[0] + 50
    assert excludes[0] > excludes[1] + 50


@pytest.mark.parametrize("point", [[0, 0], [80, 60]])
def test_a_click_in_a_corner_is_drawn_as_far_as_it_fits(point):
    picture = Visualizer(GREY).draw_points([point]).image
    assert not np.array_equal(picture, GREY)
    assert np.array_equal(picture[30, 40], GREY[30, 40])


def test_a_box_is_an_outline():
    picture = Visualizer(GREY).draw_boxes([[20, 10, 60, 50]], [(255, 0, 0)]).image
    assert picture[30, 20, 0] > 200 > picture[30, 20, 1]
    assert np.array_equal(picture[30, 40], GREY[30, 40])


def test_a_label_at_the_edge_stays_inside_the_picture():
    picture = Visualizer(GREY).draw_boxes([[75, 55, 80, 60]], labels=["cup"]).image
    dark = (picture < 70).all(axis=-1)
    assert dark.any()
    assert not dark[:, 0].any()


def test_masks_of_another_size_are_rejected():
    with pytest.raises(ValueError, match=r"\(N, 60, 80\)"):
        Visualizer(GREY).draw_masks([square(0, 0, 5, 5, size=(80, 60))])


def test_levels_stand_in_a_row_behind_the_prompt():
    masks = [square(0, 0, 20, 20), square(10, 10, 60, 50)]
    row = draw_levels(GREY, masks, ["level 1", "level 2"], points=[[15, 15]], panel_height=120)
    gap = 12
    # Three panels of 160 x 120 with gaps around them, and captions below.
    assert row.shape[1] == 3 * 160 + 4 * gap
    assert row.shape[0] > 120 + 2 * gap
    assert row[gap + 100, gap + 150].tolist() == [128, 128, 128]
    assert (row[:, :gap] == 255).all()


def test_a_picture_of_everything_takes_no_masks_too():
    assert draw_everything(GREY, np.zeros((0, 60, 80), dtype=bool)).shape == GREY.shape


def test_a_grid_has_a_row_for_every_few_pictures():
    panels = [np.full((20, 30, 3), shade, np.uint8) for shade in (10, 90, 170)]
    one = draw_grid(panels[:2], ["a", "b"], columns=2)
    grid = draw_grid(panels, ["a", "b", "c"], columns=2)
    assert grid.shape == (2 * one.shape[0], *one.shape[1:])
    for shade in (10, 90, 170):
        assert (grid == shade).all(axis=2).sum() >= 20 * 30


def test_a_grid_of_unequal_pictures_is_refused():
    panels = [np.zeros((20, 30, 3), np.uint8), np.zeros((20, 31, 3), np.uint8)]
    with pytest.raises(ValueError, match=r"one size.*\(20, 31, 3\)"):
        draw_grid(panels, ["a", "b"], columns=2)


def test_labels_do_not_cover_each_other():
    photo = np.full((200, 200, 3), 255, np.uint8)
    masks = np.repeat(square(80, 80, 120, 120, (200, 200))[None], 3, axis=0)

    def dark(labels):
        picture = Visualizer(photo).draw_masks(masks, labels=labels, alpha=0).image
        return int((picture < 100).all(axis=2).sum())

    assert dark(["house"] * 3) >= 3 * dark(["house", "", ""])


def test_labels_without_room_near_their_masks_are_left_out():
    photo = np.full((400, 80, 3), 200, np.uint8)
    masks = np.zeros((30, 400, 80), bool)
    masks[:, 10:20, 30:50] = True
    picture = Visualizer(photo).draw_masks(masks, labels=["wood"] * 30, alpha=0).image
    assert (picture[:60] < 100).any()
    np.testing.assert_array_equal(picture[140:], photo[140:])
    with pytest.raises(ValueError, match="30 masks, but 2 labels"):
        Visualizer(photo).draw_masks(masks, labels=["a", "b"])


def test_letters_beyond_english_are_written_where_the_machine_has_a_font_of_them():
    try:
        ImageFont.truetype("DejaVuSans.ttf")
    except OSError:
        pytest.skip("DejaVu Sans is not installed")
    pictures = [draw_levels(GREY, [square(2, 2, 9, 9)], [text]) for text in ("\u00e9", "\u00fc")]
    # Boxes of unknown letters would be equal.
    assert not np.array_equal(*pictures)
