import numpy as np
import pytest
import torch

from semsam.annotation.build import build_labelers
from semsam.annotation.open_vocabulary import OpenVocabularyLabeler
from semsam.annotation.records import MaskedPhoto
from semsam.config import get_cfg
from semsam.inference import SemSamPredictor
from semsam.modeling import build_model
from semsam.modeling.text.classifier import Classifier
from tests.tiny import perturb, tiny_ovsam_cfg

from .models import write_clip
from .photos import encode

CLASSES = ["dog", "wheel", "sky", "sea"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    cfg = tiny_ovsam_cfg(EMBED_DIM=16)
    cfg.MODEL.TEXT.MODEL = write_clip(tmp_path_factory.mktemp("clip"))
    torch.manual_seed(0)
    return cfg, perturb(build_model(cfg)).eval()


@pytest.fixture
def predictor(trained):
    return SemSamPredictor(trained[1])


def photo(*boxes, name="a.jpg"):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    annotations = []
    for x, y, width, height in boxes:
        mask = np.zeros((48, 64), dtype=bool)
        mask[y : y + height + 1, x : x + width + 1] = True
        annotations.append({"segmentation": encode(mask), "bbox": [x, y, width, height]})
    return MaskedPhoto(name, image, annotations)


BOXES = ([4, 6, 30, 20], [40, 10, 20, 30], [0, 0, 63, 47])


def test_masks_are_named_whatever_is_named_with_them(predictor):
    labeler = OpenVocabularyLabeler(predictor, CLASSES, batch_size=2)
    empty, together = labeler.label([photo(), photo(*BOXES)])
    assert empty.regions == []
    for box, region in zip(BOXES, together.regions, strict=True):
        ((alone,),) = (labels.regions for labels in labeler.label([photo(box)]))
        assert region["class_proposals"] == alone["class_proposals"]
        assert region["class_score"] == pytest.approx(alone["class_score"], abs=1e-4)
        assert region["class_name"] == region["class_proposals"][0]
        assert len(region["class_proposals"]) == 3


def test_of_a_prompt_s_masks_the_one_that_is_nearest_is_named(predictor):
    labeler = OpenVocabularyLabeler(predictor, CLASSES)
    given = photo(BOXES[0])
    predictor.set_image(given.image)
    output = predictor.decode(predictor.prompts(boxes=[[4, 6, 35, 27]]))
    for k in range(output.mask_logits.shape[2]):
        low = (output.mask_logits[0, 0, k] > 0).numpy()
        rows, columns = low.shape
        # What the decoder found, in pixels of the photo.
        y, x = np.mgrid[:48, :64]
        mask = low[y * rows // 64, x * columns // 64]
        if mask.any() and not any(
            np.array_equal(low, (output.mask_logits[0, 0, j] > 0).numpy()) for j in range(k)
        ):
            assert labeler._nearest(output, 0, mask) == k


def test_a_mask_that_fits_no_class_well_is_given_none(predictor):
    labeler = OpenVocabularyLabeler(predictor, CLASSES, threshold=1.1)
    (labels,) = labeler.label([photo(BOXES[0])])
    assert labels.regions[0]["class_name"] is None
    assert labels.regions[0]["class_proposals"]


@pytest.fixture
def wanted(trained, tmp_path):
    """A configuration of the labeller; its classes are to be named."""
    cfg, model = trained
    (tmp_path / "model.yaml").write_text(cfg.dump())
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    wanted = get_cfg()
    wanted.MODEL.DEVICE = "cpu"
    wanted.ANNOTATION.LABELERS = ["OpenVocabularyLabeler"]
    node = wanted.ANNOTATION.OPEN_VOCABULARY
    node.MODEL, node.WEIGHTS = str(tmp_path / "model.yaml"), str(tmp_path / "model.pth")
    return wanted


def test_the_configuration_names_a_trained_model_and_classes(wanted, trained, predictor, tmp_path):
    _, model = trained
    node = wanted.ANNOTATION.OPEN_VOCABULARY
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    expected = OpenVocabularyLabeler(predictor, CLASSES).label([photo(*BOXES)])
    classifier = tmp_path / "classes.safetensors"
    model.region_heads["TextClassHead"].encode_classes(CLASSES).save(classifier)
    for classes in (CLASSES, [str(tmp_path / "names.txt")], [str(classifier)]):
        node.CLASSES = classes
        (labeler,) = build_labelers(wanted)
        assert labeler.label([photo(*BOXES)]) == expected


def test_classes_that_cannot_be_used_are_refused_before_any_photo(wanted, predictor, tmp_path):
    foreign = Classifier(("dog",), torch.ones(1, 1, 16), "other-clip@0123")
    foreign.save(tmp_path / "foreign.safetensors")
    for classes, message in (
        ([], "the vocabulary has no name"),
        ([str(tmp_path / "foreign.safetensors")], r"foreign\.safetensors': .*other-clip.* 'clip"),
        (["dog\ncat"], "class 0 has a line break"),
    ):
        wanted.ANNOTATION.OPEN_VOCABULARY.CLASSES = classes
        with pytest.raises(ValueError, match=message):
            build_labelers(wanted)
    with pytest.raises(ValueError, match="class 1 is called 'dog', as class 0 is"):
        OpenVocabularyLabeler(predictor, ["dog", "dog"])


def test_masks_are_named_among_twenty_thousand_classes(predictor):
    names = tuple(map(str, range(20_000)))
    weights = torch.nn.functional.normalize(torch.randn(20_000, 1, 16), dim=-1)
    classifier = Classifier(
        names, weights, predictor.model.region_heads["TextClassHead"].text_encoder
    )
    (labels,) = OpenVocabularyLabeler(predictor, classifier).label([photo(*BOXES)])
    assert all(len(region["class_proposals"]) == 3 for region in labels.regions)
