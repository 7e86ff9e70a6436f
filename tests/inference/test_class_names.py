"""Names of masks, asked for by a list of classes."""

import numpy as np
import pytest
import torch

from semsam.inference import AutomaticMaskGenerator, SemSamPredictor
from semsam.inference.class_names import ClassNames
from semsam.inference.mask_filter import filter_masks
from semsam.modeling import build_model
from semsam.modeling.text.classifier import Classifier, build_classifier
from semsam.modeling.text.clip import ClipTextEncoder
from tests.annotation.models import write_clip, write_open_clip
from tests.tiny import Largest, perturb, tiny_cfg, tiny_ovsam_cfg

CLASSES = ["dog", "wheel", "sky", "a 'quoted' {name}"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    cfg = tiny_ovsam_cfg(EMBED_DIM=16)
    cfg.MODEL.TEXT.MODEL = write_clip(tmp_path_factory.mktemp("clip"))
    torch.manual_seed(0)
    return perturb(build_model(cfg)).eval()


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture
def predictor(model, photo):
    predictor = SemSamPredictor(model)
    predictor.set_image(photo)
    return predictor


def test_each_mask_is_named_by_the_class_that_its_embedding_is_nearest_to(predictor, model):
    *plain, names = predictor.predict([[20, 30]], classes=CLASSES)
    for found, expected in zip(plain, predictor.predict([[20, 30]]), strict=True):
        np.testing.assert_array_equal(found, expected)
    output = predictor.decode(predictor.prompts([[20.0, 30.0]]))
    head = model.region_heads["TextClassHead"]
    classifier = head.encode_classes(CLASSES)
    order = list(output.level_order)
    logits = head.score(output.text.embeddings[0, 0, order], classifier)
    best = logits.softmax(dim=-1).max(dim=-1)
    assert [name for name, _ in names] == [CLASSES[i] for i in best.indices.tolist()]
    np.testing.assert_allclose([score for _, score in names], best.values.detach(), rtol=1e-5)


def test_the_best_mask_alone_has_its_own_name(predictor):
    masks, scores, _, names = predictor.predict(
        box=[5, 6, 40, 30], multimask_output=False, classes=CLASSES
    )
    assert masks.shape[0] == scores.shape[0] == len(names) == 1


def test_a_batch_names_the_masks_of_each_prompt(predictor):
    points = [[20, 30], [40, 10], [5, 5]]
    *_, names = predictor.predict_batch(points, classes=CLASSES)
    assert [len(of_prompt) for of_prompt in names] == [3, 3, 3]
    *_, alone = predictor.predict([points[1]], classes=CLASSES)
    assert [name for name, _ in names[1]] == [name for name, _ in alone]


def test_classes_are_encoded_once(predictor, model, monkeypatch):
    predictor.predict([[20, 30]], classes=CLASSES)
    head = model.region_heads["TextClassHead"]
    monkeypatch.setattr(head, "encode_classes", None)
    predictor.predict([[9, 9]], classes=list(CLASSES))


def test_a_classifier_is_made_ready_once(predictor, model):
    first, second = many_classes(model), many_classes(model)
    ready = predictor.class_names(first)
    assert predictor.class_names(first) is ready
    assert predictor.class_names(second) is not ready


def test_a_classifier_and_its_file_name_as_the_list_does(predictor, model, tmp_path):
    expected = predictor.predict([[20, 30]], classes=CLASSES)[3]
    classifier = model.region_heads["TextClassHead"].encode_classes(CLASSES)
    classifier.save(tmp_path / "classes.safetensors")
    for classes in (classifier, tmp_path / "classes.safetensors"):
        assert predictor.predict([[20, 30]], classes=classes)[3] == expected


def many_classes(model):
    """20,000 names as a classifier of the model's encoder."""
    weights = torch.nn.functional.normalize(torch.randn(20_000, 1, 16), dim=-1)
    encoder = model.region_heads["TextClassHead"].text_encoder
    return Classifier(tuple(map(str, range(20_000))), weights, encoder)


def test_twenty_thousand_classes_name_many_masks_in_bounded_memory(predictor, model):
    classifier = many_classes(model)
    boxes = [[x, y, x + 20, y + 10] for x in range(0, 40, 4) for y in range(0, 36, 3)]
    output = predictor.decode(predictor.prompts(boxes=boxes))
    expected = ClassNames(model, classifier).probabilities(output.text)[0].max(dim=-1)
    with Largest() as largest:
        *_, names = predictor.predict_batch(boxes=boxes, classes=classifier)
    # Scores of all masks would be 10 million numbers.
    assert largest.numel <= 2**22
    order = list(output.level_order)
    assert [[int(x.name) for x in row] for row in names] == expected.indices[:, order].tolist()
    scores = [[x.score for x in row] for row in names]
    np.testing.assert_allclose(scores, expected.values[:, order], rtol=1e-4)


def test_a_list_of_twenty_thousand_names_is_encoded(predictor):
    names = [f"class {i}" for i in range(20_000)]
    assert predictor.predict([[20, 30]], classes=names)[3][0].name in names


def test_everything_is_named_among_twenty_thousand_classes(model, photo):
    settings = {"points_per_side": 4, "pred_iou_thresh": None, "stability_score_thresh": None}
    generator = AutomaticMaskGenerator(model, classes=many_classes(model), **settings)
    with Largest() as largest:
        records = generator.generate(photo)
    assert largest.numel <= 2**22
    assert records
    assert all(0 <= int(record["class_name"]) < 20_000 for record in records)


def test_everything_in_a_photo_is_named(model, photo):
    settings = {
        "points_per_side": 3,
        "pred_iou_thresh": None,
        "stability_score_thresh": None,
        "min_mask_region_area": 0,
    }
    named = AutomaticMaskGenerator(model, classes=CLASSES, **settings).generate(photo)
    plain = AutomaticMaskGenerator(model, **settings).generate(photo)
    assert len(named) == len(plain) > 0
    for record, other in zip(named, plain, strict=True):
        assert record["class_name"] in CLASSES
        assert 0.25 <= record["class_score"] <= 1
        more = ["class_name", "class_score", "predicted_cosine_similarity"]
        assert list(record) == [*other, *more]
        assert record["bbox"] == other["bbox"]
    every = {f"{key}_thresh": -9.0 for key in ("score", "pred_iou", "stability_score", "cosine")}
    chosen = filter_masks(named, photo.shape[:2], **every, box_thresh=2, area_thresh=2)
    assert 0 < len(chosen) <= len(named)


@pytest.mark.parametrize(
    ("classes", "message"),
    [([], "the list of classes is empty"), (["dog", "cat", "dog"], "class 2 is called 'dog'")],
)
def test_a_list_that_cannot_be_used_is_an_error(predictor, classes, message):
    with pytest.raises(ValueError, match=message):
        predictor.predict([[20, 30]], classes=classes)


@pytest.mark.parametrize("door", [ClassNames, SemSamPredictor, AutomaticMaskGenerator])
def test_a_classifier_of_another_encoder_is_refused_before_any_photo(model, tmp_path, door):
    def ask(classes):
        if door is SemSamPredictor:
            return SemSamPredictor(model).class_names(classes)
        return door(model, classes=classes)

    weights = torch.nn.functional.normalize(torch.randn(2, 1, 16), dim=-1)
    foreign = Classifier(("a", "b"), weights, "other-clip")
    with pytest.raises(ValueError, match=r"^the classifier .*'other-clip', the model's is 'clip"):
        ask(foreign)
    path = tmp_path / "foreign.safetensors"
    foreign.save(path)
    with pytest.raises(ValueError, match=r"foreign\.safetensors': .*'other-clip'"):
        ask(path)
    wide = Classifier(("a",), torch.ones(1, 1, 8), model.region_heads["TextClassHead"].text_encoder)
    with pytest.raises(ValueError, match=r"has 8 channels, the model's embeddings 16"):
        ask(wide)


def test_classes_made_for_another_model_are_refused(predictor, tmp_path):
    cfg = tiny_ovsam_cfg(EMBED_DIM=16)
    cfg.MODEL.TEXT.MODEL = write_clip(tmp_path / "clip")
    other = ClassNames(build_model(cfg), CLASSES)
    with pytest.raises(ValueError, match="made for another model"):
        predictor.predict([[20, 30]], classes=other)


def test_a_name_instead_of_a_list_is_taken_for_a_file_and_the_cure_is_said(predictor):
    with pytest.raises(FileNotFoundError, match="'dog' does not exist; names are given as a list"):
        predictor.predict([[20, 30]], classes="dog")


def test_a_model_without_embeddings_says_so(photo):
    predictor = SemSamPredictor(build_model(tiny_cfg()))
    predictor.set_image(photo)
    with pytest.raises(ValueError, match="TextClassHead among"):
        predictor.predict([[20, 30]], classes=CLASSES)


def test_a_model_that_knows_no_encoder_asks_for_a_classifier(photo):
    predictor = SemSamPredictor(build_model(tiny_ovsam_cfg(EMBED_DIM=16)))
    predictor.set_image(photo)
    with pytest.raises(ValueError, match=r"give a classifier of tools/build_classifier\.py"):
        predictor.predict([[20, 30]], classes=CLASSES)


def test_names_of_parts_are_read_in_their_own_space(tmp_path, photo):
    cfg = tiny_ovsam_cfg(EMBED_DIM=16, PARTS=True)
    cfg.MODEL.TEXT.MODEL = write_clip(tmp_path / "clip")
    torch.manual_seed(0)
    predictor = SemSamPredictor(perturb(build_model(cfg)))
    predictor.set_image(photo)
    parts = ClassNames(predictor.model, CLASSES, parts=True)
    output = predictor.decode(predictor.prompts([[20.0, 30.0]]))
    expected = parts.probabilities(output.text)[0, 0, list(output.level_order)].max(dim=-1).values
    *_, names = predictor.predict([[20, 30]], classes=parts)
    np.testing.assert_allclose([score for _, score in names], expected, rtol=1e-5)
    *_, wholes = predictor.predict([[20, 30]], classes=CLASSES)
    assert [score for _, score in names] != [score for _, score in wholes]


def test_a_model_without_a_space_of_parts_says_so(model):
    with pytest.raises(ValueError, match=r"MODEL\.TEXT_CLASS\.PARTS"):
        ClassNames(model, CLASSES, parts=True)


def test_a_part_of_something_is_read_in_the_space_of_parts_among_other_names(tmp_path, photo):
    cfg = tiny_ovsam_cfg(EMBED_DIM=16, PARTS=True)
    cfg.MODEL.TEXT.MODEL = write_clip(tmp_path / "clip")
    torch.manual_seed(0)
    predictor = SemSamPredictor(perturb(build_model(cfg)))
    predictor.set_image(photo)
    text = predictor.decode(predictor.prompts([[20.0, 30.0]])).text
    names = ClassNames(predictor.model, ["dog", "dog:head"])
    head = predictor.model.region_heads["TextClassHead"]
    # A part is said without the mark.
    said = head.encode_classes(["dog", "dog head"])
    with torch.inference_mode():
        whole, part = (head.score(space, said) for space in (text.embeddings, text.parts))
        expected = torch.stack([whole[..., 0], part[..., 1]], dim=-1).softmax(dim=-1)
        torch.testing.assert_close(names.probabilities(text), expected)
        ids, scores = names(text)
    torch.testing.assert_close(scores, expected.max(dim=-1).values)
    assert torch.equal(ids, expected.argmax(dim=-1))


def test_a_model_of_open_clip_s_text_space_names_masks(tmp_path, photo):
    pytest.importorskip("open_clip")
    folder = tmp_path / "ViT-tiny"
    folder.mkdir()
    write_open_clip(folder)
    cfg = tiny_ovsam_cfg(EMBED_DIM=16)
    cfg.MODEL.TEXT.MODEL = f"local-dir:{folder}"
    torch.manual_seed(0)
    predictor = SemSamPredictor(perturb(build_model(cfg)))
    predictor.set_image(photo)
    *_, names = predictor.predict([[20, 30]], classes=CLASSES)
    encoder = ClipTextEncoder(f"local-dir:{folder}")
    built = build_classifier(CLASSES, encoder, ["a photo of a {}."])
    built.save(tmp_path / "classes.safetensors")
    *_, of_file = predictor.predict([[20, 30]], classes=tmp_path / "classes.safetensors")
    assert of_file == names
    foreign = build_classifier(CLASSES, ClipTextEncoder(write_clip(tmp_path / "clip")))
    with pytest.raises(ValueError, match=r"'clip@.*', the model's is 'ViT-tiny'"):
        predictor.predict([[20, 30]], classes=foreign)
