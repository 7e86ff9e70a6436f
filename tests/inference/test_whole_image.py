"""Segments of a whole image, by a list of classes and without prompts."""

import numpy as np
import pytest
import torch

from semsam.inference import SemSamPredictor
from semsam.modeling import build_model
from semsam.modeling.text.classifier import Classifier
from tests.modeling.test_naming import NAMES, named_cfg, parts_cfg
from tests.tiny import Largest, perturb, tiny_cfg


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    return perturb(build_model(named_cfg(tmp_path)))


@pytest.fixture
def predictor(model, photo):
    predictor = SemSamPredictor(model)
    predictor.set_image(photo)
    return predictor


def test_an_image_is_segmented_by_a_vocabulary_of_the_model(predictor):
    found = predictor.segment("pets", things=["cat", "dog"])
    assert found["names"] == NAMES
    assert found["sem_seg"].shape == (48, 64)
    assert set(found["sem_seg"].unique().tolist()) <= {0, 1, 2}
    ids, segments = found["panoptic_seg"]
    assert ids.shape == (48, 64)
    assert all(entry["isthing"] == (entry["category_id"] < 2) for entry in segments)
    assert set(found["instances"].pred_classes.tolist()) <= {0, 1}


def test_other_classes_give_what_a_vocabulary_of_the_same_vectors_gives(predictor, model):
    own = predictor.segment("pets")
    vectors = model.naming.get_buffer("vectors_pets")
    sentences = torch.stack([vectors, vectors], dim=1)
    other = predictor.segment(Classifier(("a", "b", "c"), sentences, "letters"))
    assert other["names"] == ("a", "b", "c")
    assert torch.equal(other["sem_seg"], own["sem_seg"])
    assert torch.equal(other["panoptic_seg"][0], own["panoptic_seg"][0])


def test_masks_of_a_click_are_named_by_a_vocabulary_of_the_model(predictor):
    *_, names = predictor.predict([20, 30], classes="pets")
    assert {name for name, _ in names} <= set(NAMES)


def test_things_are_classes(predictor):
    with pytest.raises(ValueError, match="none of the classes: bird"):
        predictor.segment("pets", things=["cat", "bird"])


def test_names_of_parts_do_not_segment_a_whole_image(tmp_path, photo):
    predictor = SemSamPredictor(build_model(parts_cfg(tmp_path, ("bus", "bus:wheel"))))
    predictor.set_image(photo)
    with pytest.raises(ValueError, match="not of their parts"):
        predictor.segment("parts")


def test_a_vocabulary_of_another_encoder_does_not_segment_an_image(model, photo):
    model.region_heads["TextClassHead"].text_encoder = "letters"
    predictor = SemSamPredictor(model)
    predictor.set_image(photo)
    with pytest.raises(ValueError, match="'runes', the model's is 'letters'"):
        predictor.segment(Classifier(("a",), torch.ones(1, 1, 16), "runes"))


def test_an_image_is_segmented_by_twenty_thousand_classes_in_bounded_memory(predictor):
    names = tuple(map(str, range(20_000)))
    weights = torch.nn.functional.normalize(torch.randn(20_000, 1, 16), dim=-1)
    with Largest() as largest:
        found = predictor.segment(Classifier(names, weights, "letters"), things=names[:100])
    # Scores of each class at each pixel would be 61 million numbers.
    assert largest.numel <= 2**24
    assert found["sem_seg"].shape == (48, 64)
    assert set(found["instances"].pred_classes.tolist()) <= set(range(100))


def test_a_model_of_prompts_alone_says_what_it_lacks(photo):
    predictor = SemSamPredictor(build_model(tiny_cfg()))
    predictor.set_image(photo)
    with pytest.raises(ValueError, match=r"answers prompts only.*NUM_QUERIES"):
        predictor.segment(["dog"])
