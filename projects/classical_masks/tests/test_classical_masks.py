import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("skimage")

from semsam.annotation.build import build_mask_source
from semsam.annotation.engine import AnnotationEngine
from semsam.annotation.records import Labels
from semsam.config import load_cfg

CONFIG = Path(__file__).parents[1] / "classical_masks.yaml"


class Sizes:
    """A labeller without a model."""

    def label(self, photos):
        return [Labels([{"pixels": a["area"]} for a in photo.annotations]) for photo in photos]


def write_card(folder):
    """A bright card on a dark table."""
    image = np.full((48, 64, 3), 40, np.uint8)
    image[12:36, 16:48] = 200
    Image.fromarray(image).save(folder / "card.png")
    return image[..., 0] == 200


def load(folder, *overrides):
    keys = {"NUM_SUPERPIXELS": 48, "MAX_AREA": 0.5}
    small = [f"ANNOTATION.MASKS.CLASSICAL.{key}={value}" for key, value in keys.items()]
    return build_mask_source(load_cfg(CONFIG, [*small, *overrides]), folder)


def test_a_thing_with_clear_edges_is_one_of_the_masks(tmp_path):
    card = write_card(tmp_path)
    source = load(tmp_path)
    photo = source.load(source.items()[0])
    masks = [photo.mask(index) for index in range(len(photo.annotations))]
    assert max((mask & card).sum() / (mask | card).sum() for mask in masks) > 0.9


def test_sizes_and_number_stay_within_the_configuration(tmp_path):
    write_card(tmp_path)
    source = load(
        tmp_path,
        "ANNOTATION.MASKS.CLASSICAL.MAX_MASKS=5",
        "ANNOTATION.MASKS.CLASSICAL.MIN_AREA=0.01",
    )
    annotations = source.load(source.items()[0]).annotations
    assert 0 < len(annotations) <= 5
    for annotation in annotations:
        assert 0.01 <= annotation["area"] / (48 * 64) <= 0.5


def test_a_folder_is_annotated_with_its_masks(tmp_path):
    write_card(tmp_path)
    AnnotationEngine(load(tmp_path), [Sizes()]).run(tmp_path / "results")
    result = json.loads((tmp_path / "results" / "card_semantic.json").read_text())
    assert result["annotations"]
    for annotation in result["annotations"]:
        assert annotation["pixels"] == annotation["area"]
        assert annotation["segmentation"]["size"] == [48, 64]


def test_limits_that_exclude_each_other_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="MIN_AREA up to MAX_AREA"):
        load(tmp_path, "ANNOTATION.MASKS.CLASSICAL.MIN_AREA=0.9")
