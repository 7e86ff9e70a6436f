import numpy as np
import pytest

from semsam.data.datasets.scenes import draw_scene
from semsam.data.datasets.scenes.backdrops import OBJECTS
from semsam.data.datasets.scenes.canvas import Canvas, Material, Part, rectangle
from semsam.data.datasets.scenes.scene import _paint, _regions

GRAY = Material((128.0, 128.0, 128.0), "gray")


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(np.random.default_rng(seed), 160, 192) for seed in range(12)]


def test_a_seed_is_a_scene(scenes):
    again = draw_scene(np.random.default_rng(3), 160, 192)
    assert np.array_equal(again.image, scenes[3].image)
    assert again.caption == scenes[3].caption
    assert not np.array_equal(again.image, scenes[4].image)


def test_a_region_lies_inside_its_parent_and_differs_from_it(scenes):
    nested = 0
    for scene in scenes:
        for index, region in enumerate(scene.regions):
            if region.parent is not None:
                parent = scene.regions[region.parent].mask
                assert region.parent < index
                assert not (region.mask & ~parent).any()
                assert region.mask.sum() < 0.95 * parent.sum()
                nested += 1
    assert nested > 100


def test_regions_without_a_parent_share_no_pixel(scenes):
    for scene in scenes:
        tops = [r.mask for r in scene.regions if r.parent is None]
        assert np.sum(tops, axis=0).max() == 1


def test_a_click_has_four_granularities_somewhere(scenes):
    depths = [np.sum([r.mask for r in scene.regions], axis=0).max() for scene in scenes]
    assert max(depths) >= 4


def test_regions_are_no_smaller_than_asked(scenes):
    few = draw_scene(np.random.default_rng(0), 160, 192, min_area=0.02)
    assert min(r.mask.mean() for r in few.regions) >= 0.02
    assert len(few.regions) < len(scenes[0].regions)


def test_every_region_has_a_name_and_a_caption_and_every_part_a_colour(scenes):
    for scene in scenes:
        assert scene.caption
        for region in scene.regions:
            assert region.name in region.caption
            assert region.attributes or region.kind in ("group", "object", "stuff", "part")


def test_what_is_painted_later_hides_what_was_before():
    back = Part("back", rectangle(10, 10, 50, 50), GRAY, kind="object")
    front = Part("front", rectangle(30, 30, 60, 60), GRAY, kind="object")
    canvas = Canvas(80, 80)
    owners = _paint(canvas, [back, front], np.random.default_rng(0))
    hidden, whole = _regions(canvas.owner, [back, front], owners, least=1)
    assert whole.mask.sum() == pytest.approx(30 * 30, rel=0.05)
    assert hidden.mask.sum() == pytest.approx(40 * 40 - 20 * 20, rel=0.05)
    assert not (hidden.mask & whole.mask).any()


@pytest.mark.parametrize("name", sorted(OBJECTS))
def test_an_object_stands_on_its_base_and_shows_its_parts(name):
    part = OBJECTS[name](np.random.default_rng(1))
    x0, y0, x1, y1 = part.extent()
    assert -0.3 < y1 < 0.15
    assert 0.9 < max(x1 - x0, y1 - y0) < 1.4
    assert abs(x0 + x1) < 0.5 * (x1 - x0)
    thing = part.moved(100, 190, 180)
    canvas = Canvas(200, 200)
    owners = _paint(canvas, [thing], np.random.default_rng(0))
    assert len(_regions(canvas.owner, [thing], owners, least=20)) >= 4


def test_moving_turns_mirrors_and_scales_textures_along():
    striped = Material((1.0, 1.0, 1.0), "white", "striped", period=0.1, angle=0.25)
    part = Part("flag", rectangle(0, -1, 2, 0), striped).moved(10, 20, 3, angle=0.0, flip=True)
    assert part.extent() == (4, 17, 10, 20)
    assert part.material.period == pytest.approx(0.3)
    turned = Part("flag", rectangle(0, -1, 2, 0), striped).moved(0, 0, 1, angle=np.pi / 2)
    assert turned.extent() == pytest.approx((0, 0, 1, 2))
    assert turned.material.angle == pytest.approx(0.25 + np.pi / 2)


def test_a_picture_too_small_for_objects_is_rejected():
    with pytest.raises(ValueError, match="64 pixels"):
        draw_scene(np.random.default_rng(0), 40, 200)


def test_only_the_kinds_that_were_asked_for_appear():
    for seed in range(6):
        scene = draw_scene(np.random.default_rng(seed), 128, 128, kinds=("boat", "balloon"))
        names = {r.name for r in scene.regions if r.kind == "object"}
        assert names <= {"boat", "balloon"}


def test_fewer_things_are_drawn_larger():
    def largest(max_things):
        rngs = (np.random.default_rng(seed) for seed in range(12))
        scenes = [draw_scene(r, 128, 128, max_things=max_things, kinds=("house",)) for r in rngs]
        return np.mean([max(r.mask.sum() for r in s.regions if r.name == "house") for s in scenes])

    assert largest(1) > largest(4)


def test_an_unknown_kind_is_rejected():
    with pytest.raises(ValueError, match="unicorn"):
        draw_scene(np.random.default_rng(0), kinds=("unicorn",))
