import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from semsam.annotation.build import LABELER
from semsam.annotation.closed_set import ClosedSetLabeler, vote
from semsam.annotation.records import MaskedPhoto
from semsam.annotation.segmenters import Segmenter
from semsam.config import get_cfg, load_cfg
from semsam.data.label_maps import label_map
from semsam.data.run_length import RunLengthMasks
from semsam.data.semantic_mask import decode_semantic_mask

from .segmenter_models import NAMES, write_segformer

CONFIGS = Path(__file__).parents[2] / "configs"


def bitmaps(*masks):
    return RunLengthMasks.from_bitmaps(np.array(masks, dtype=bool))


def test_a_mask_takes_its_most_frequent_class():
    votes = vote(np.array([[4, 4, 7], [4, 9, 9]]), bitmaps([[1, 1, 0], [1, 1, 0]]))
    assert votes.classes == [4]
    assert votes.shares == [0.75]
    assert votes.class_map.tolist() == [[4, 4, 7], [4, 4, 9]]


def test_small_masks_are_painted_last_whatever_their_order():
    class_map = np.array([[1, 1, 1, 2]])
    small, large = [[0, 0, 0, 1]], [[1, 1, 1, 1]]
    for order in ([small, large], [large, small]):
        assert vote(class_map, bitmaps(*order)).class_map.tolist() == [[1, 1, 1, 2]]


def test_of_masks_of_equal_area_the_later_is_painted_last():
    votes = vote(np.array([[1, 1, 2, 2, 2]]), bitmaps([[1, 1, 1, 0, 0]], [[0, 0, 1, 1, 1]]))
    assert votes.classes == [1, 2]
    assert votes.class_map.tolist() == [[1, 1, 2, 2, 2]]


def test_votes_count_the_segmenter_s_map_not_the_painted_one():
    votes = vote(np.array([[1, 1, 1, 2, 2]]), bitmaps([[1, 1, 1, 1, 1]], [[0, 0, 1, 1, 1]]))
    assert votes.classes == [1, 2]


def test_of_equally_frequent_classes_the_lowest_id_wins():
    assert vote(np.array([[9, 3, 5]]), bitmaps([[1, 1, 1]])).classes == [3]


def test_a_mask_without_pixels_has_no_class():
    votes = vote(np.array([[1, 2]]), bitmaps([[0, 0]], [[0, 1]]))
    assert votes.classes == [None, 2]
    assert votes.shares == [0.0, 1.0]


def test_without_masks_the_map_stays():
    empty = RunLengthMasks.from_bitmaps(np.zeros((0, 1, 2), dtype=bool))
    assert vote(np.array([[1, 2]]), empty).class_map.tolist() == [[1, 2]]


def test_masks_of_another_size_are_an_error():
    with pytest.raises(ValueError, match=r"\(1, 2\).*\(1, 3\)"):
        vote(np.array([[1, 2]]), bitmaps([[1, 1, 1]]))


def code(mask):
    found = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


def masked(name, seed, shape, *boxes):
    """A photo with boxes (x0, y0, x1, y1) as masks."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    image = np.array(Image.fromarray(coarse).resize(shape[::-1]))
    annotations = []
    for x0, y0, x1, y1 in boxes:
        mask = np.zeros(shape)
        mask[y0:y1, x0:x1] = 1
        annotations.append({"segmentation": code(mask), "bbox": [x0, y0, x1 - x0, y1 - y0]})
    return MaskedPhoto(name, image, annotations)


@pytest.fixture(scope="module")
def photos():
    return [
        masked("a", 0, (60, 80), (0, 0, 40, 60), (10, 10, 20, 20), (5, 5, 5, 5)),
        masked("b", 1, (40, 50)),
        masked("c", 2, (40, 50), (0, 0, 50, 40)),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_segformer(tmp_path_factory.mktemp("segformer"))


def test_names_and_map_of_photos_are_those_of_the_vote(photos, folder):
    segmenter = Segmenter(folder, device="cpu")
    for photo, labels in zip(photos, ClosedSetLabeler([segmenter]).label(photos), strict=True):
        codes = [row["segmentation"] for row in photo.annotations]
        masks = RunLengthMasks.from_coco(codes, photo.image.shape[:2])
        votes = vote(segmenter.segment([photo.image])[0], masks)
        names = [segmenter.labels[i] if i is not None else None for i in votes.classes]
        assert [region["class_name"] for region in labels.regions] == names
        assert np.array_equal(decode_semantic_mask(labels.photo["semantic_mask"]), votes.class_map)


def test_a_mask_without_pixels_has_neither_name_nor_proposals(photos, folder):
    labels = ClosedSetLabeler([Segmenter(folder, device="cpu")]).label(photos)
    assert labels[0].regions[2] == {"class_name": None, "class_proposals": []}


def test_of_two_segmenters_the_surer_one_names_and_the_first_one_paints(photos, folder, tmp_path):
    names = ["street", "air", "plant", "vehicle", "human"]
    (tmp_path / "names.json").write_text(json.dumps(names))
    other = write_segformer(tmp_path / "other", seed=1)
    first = Segmenter(folder, device="cpu")
    second = Segmenter(other, str(tmp_path / "names.json"), "cpu")
    labels = ClosedSetLabeler([first, second]).label(photos)
    alone = [ClosedSetLabeler([one]).label(photos) for one in (first, second)]
    masks = RunLengthMasks.from_coco(
        [row["segmentation"] for row in photos[0].annotations], photos[0].image.shape[:2]
    )
    shares = [vote(one.segment([photos[0].image])[0], masks).shares for one in (first, second)]
    for index in range(2):
        order = [0, 1] if shares[0][index] >= shares[1][index] else [1, 0]
        expected = [alone[i][0].regions[index]["class_name"] for i in order]
        assert labels[0].regions[index]["class_proposals"] == expected
        assert labels[0].regions[index]["class_name"] == expected[0]
    assert labels[0].photo == alone[0][0].photo


def test_names_on_which_segmenters_agree_are_listed_once(photos, folder):
    segmenter = Segmenter(folder, device="cpu")
    labels = ClosedSetLabeler([segmenter, segmenter]).label(photos)
    assert all(len(region["class_proposals"]) == 1 for region in labels[0].regions[:2])


def test_a_configuration_names_segmenters_and_label_maps(photos, folder):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.ANNOTATION.CLOSED_SET.SEGMENTERS = [folder]
    cfg.ANNOTATION.CLOSED_SET.LABEL_MAPS = [""]
    labels = LABELER.get("ClosedSetLabeler")(cfg).label(photos)
    assert labels[0].regions[0]["class_name"] in NAMES.values()
    cfg.ANNOTATION.CLOSED_SET.LABEL_MAPS = []
    with pytest.raises(ValueError, match=r"LABEL_MAPS needs one entry a segmenter.*0 for 1"):
        ClosedSetLabeler(cfg)
    cfg.ANNOTATION.CLOSED_SET.SEGMENTERS = []
    with pytest.raises(ValueError, match="SEGMENTERS names no segmenter"):
        ClosedSetLabeler(cfg)


def test_a_damaged_mask_is_an_error_that_names_the_photo(folder):
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    photo = MaskedPhoto("street", image, [{"segmentation": {"size": [2, 2], "counts": "1"}}])
    with pytest.raises(ValueError, match="street: the counts of mask 0 do not fill"):
        ClosedSetLabeler([Segmenter(folder, device="cpu")]).label([photo])


@pytest.mark.parametrize("dataset", ["ade20k", "cityscapes", "coco"])
def test_the_configurations_of_closed_sets_name_a_label_map_a_segmenter(dataset):
    cfg = load_cfg(CONFIGS / "ssa" / f"closed_{dataset}.yaml")
    node = cfg.ANNOTATION.CLOSED_SET
    assert cfg.ANNOTATION.LABELERS == ["ClosedSetLabeler"]
    assert len(node.SEGMENTERS) == len(node.LABEL_MAPS) == 1
    assert label_map(node.LABEL_MAPS[0])
