import numpy as np
import pytest
import torch

from semsam.annotation.clip import ClipScorer, top_names
from semsam.annotation.clip_labeler import ClipLabeler
from semsam.annotation.records import MaskedPhoto
from semsam.config import get_cfg
from semsam.modeling.text.clip import load_clip

from .models import write_clip, write_open_clip

CPU = torch.device("cpu")
NAMES = ["a red car", "dog", "the wall of a roof"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def encoder(folder):
    return load_clip(folder, CPU, "ANNOTATION.CLIP.MODEL")


def patches(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *s), generator=generator, dtype=torch.uint8) for s in sizes]


def photo(name, height, width, *boxes):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return MaskedPhoto(name, image, [{"bbox": box} for box in boxes])


def test_logits_are_those_of_the_whole_model_called_patch_by_patch(folder, encoder):
    from transformers import CLIPModel, CLIPProcessor

    given = patches((20, 30), (3, 40), (1, 1), (50, 50))
    scorer = ClipScorer(encoder, batch_size=3)
    found = scorer.logits(scorer.image_features(given), scorer.text_features(NAMES))
    model, processor = CLIPModel.from_pretrained(folder), CLIPProcessor.from_pretrained(folder)
    for patch, row in zip(given, found, strict=True):
        inputs = processor(
            text=NAMES, images=patch.permute(1, 2, 0).numpy(), padding=True, return_tensors="pt",
            input_data_format="channels_last",
        )  # fmt: skip
        with torch.no_grad():
            expected = model(**inputs).logits_per_image
        torch.testing.assert_close(torch.from_numpy(row)[None], expected, atol=1e-4, rtol=0)


def test_a_name_is_encoded_once(encoder):
    calls = []

    class Counting:
        device = CPU
        logit_scale = 1.0

        def encode_text(self, texts):
            calls.extend(texts)
            return encoder.encode_text(texts)

    scorer = ClipScorer(Counting(), batch_size=2)
    first = scorer.text_features(NAMES)
    second = scorer.text_features([*NAMES[::-1], "cat"])
    assert sorted(calls) == sorted([*NAMES, "cat"])
    assert torch.equal(second[:3], first.flip(0))


def test_templates_are_averaged(encoder):
    scorer = ClipScorer(encoder, batch_size=8)
    found = scorer.text_features(["dog"], ["a {}", "one {}"])
    mean = encoder.encode_text(["a dog", "one dog"]).mean(0)
    torch.testing.assert_close(found[0], mean / mean.norm())


def test_the_best_names_come_first_and_of_equal_ones_the_earlier():
    assert top_names(list("abcd"), np.array([1.0, 3.0, 3.0, 2.0]), 3) == ["b", "c", "d"]


def test_a_single_candidate_is_a_list_of_one():
    assert top_names(["wall"], np.array([20.0]), 3) == ["wall"]


def test_masks_of_all_photos_are_named_as_alone(encoder):
    labeler = ClipLabeler(encoder, NAMES, batch_size=2)
    photos = [
        photo("a.jpg", 20, 30, [1, 2, 10, 8], [5, 5, 20, 10], [0, 0, 3, 3]),
        photo("empty.jpg", 9, 9),
        photo("b.jpg", 40, 16, [2, 3, 6, 20]),
    ]
    together = labeler.label(photos)
    assert [len(labels.regions) for labels in together] == [3, 0, 1]
    for one, labels in zip(photos, together, strict=True):
        assert labeler.label([one]) == [labels]
    region = together[0].regions[0]
    assert sorted(region["class_proposals"]) == sorted(NAMES)
    assert region["class_name"] == region["class_proposals"][0]
    assert 1 / 3 <= region["class_score"] <= 1


def test_a_mask_that_fits_no_name_well_is_given_none(encoder):
    labeler = ClipLabeler(encoder, NAMES, threshold=1.0, top_k=2)
    (labels,) = labeler.label([photo("a.jpg", 20, 30, [1, 2, 10, 8])])
    assert labels.regions[0]["class_name"] is None
    assert len(labels.regions[0]["class_proposals"]) == 2


def test_the_configuration_names_model_and_vocabulary(folder, tmp_path):
    (tmp_path / "names.txt").write_text("dog\ncat \n\ndog\n", encoding="utf-8")
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.ANNOTATION.CLIP.MODEL = folder
    cfg.ANNOTATION.CLIP.VOCABULARY = ["tree", str(tmp_path / "names.txt")]
    assert ClipLabeler(cfg).vocabulary == ["tree", "dog", "cat"]


def test_a_template_without_a_place_for_the_name_is_rejected(encoder):
    with pytest.raises(ValueError, match="TEMPLATES"):
        ClipLabeler(encoder, NAMES, templates=["a photo"])


def test_a_model_of_open_clip_scores_as_it_does_alone(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    model = write_open_clip(tmp_path)
    encoder = load_clip(f"local-dir:{tmp_path}", CPU, "CLIP.MODEL")
    scorer = ClipScorer(encoder, batch_size=2)
    given = patches((20, 30), (40, 12), (32, 32))
    found = scorer.logits(scorer.image_features(given), scorer.text_features(NAMES))
    with torch.no_grad():
        text_features = model.encode_text(
            open_clip.get_tokenizer("ViT-B-32", context_length=16)(NAMES), normalize=True
        )
        pixels = given[2][None] / 127.5 - 1
        expected = (
            model.logit_scale.exp() * model.encode_image(pixels, normalize=True) @ text_features.T
        )
    np.testing.assert_allclose(found[2:], expected.numpy(), atol=1e-4)
    rounded = load_clip(f"local-dir:{tmp_path}", CPU, "CLIP.MODEL", torch.bfloat16)
    similarity = (rounded.encode_images(given) * encoder.encode_images(given)).sum(dim=1)
    assert rounded.encode_text(NAMES).dtype == torch.float32
    assert ((similarity > 0.99) & (similarity < 0.999999)).all()
