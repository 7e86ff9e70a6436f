import logging
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from semsam.modeling.text.classifier import (
    Classifier,
    build_classifier,
    cached_classifier,
    check_encoder,
    class_scores,
    top_classes,
)
from semsam.modeling.text.clip import ClipTextEncoder
from tests.annotation.models import write_clip
from tests.tiny import Largest

NAMES = ["dog", "a red car", "wall"]
TEMPLATES = ["a {}", "one {}."]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return ClipTextEncoder(write_clip(tmp_path_factory.mktemp("models") / "clip"))


@pytest.fixture(scope="module")
def classifier(encoder):
    return build_classifier(NAMES, encoder, TEMPLATES)


def random_classifier(classes, sentences=1, dim=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = normalize(torch.randn(classes, sentences, dim, generator=generator), dim=-1)
    return Classifier(tuple(f"class {i}" for i in range(classes)), weights, "random")


def embeddings(*shape, dim=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, dim, generator=generator), dim=-1)


def test_each_sentence_of_each_name_is_a_row(encoder):
    built = build_classifier(NAMES, encoder, TEMPLATES, average=False, batch_size=1)
    assert built.weights.shape == (3, 2, encoder.dim)
    expected = encoder(["a a red car", "one a red car."])
    torch.testing.assert_close(built.weights[1], expected)
    assert built.encoder == encoder.name


def test_sentences_are_averaged_to_unit_length(encoder, classifier):
    mean = encoder(["a wall", "one wall."]).mean(dim=0)
    torch.testing.assert_close(classifier.weights[2, 0], mean / mean.norm())
    assert not classifier.weights.requires_grad


@pytest.mark.parametrize(
    ("background", "texts"),
    [("none", []), ("word", ["background"]), ("not", [f"not a {name}" for name in NAMES])],
)
def test_rows_of_the_background_stand_last(encoder, background, texts):
    built = build_classifier(NAMES, encoder, background=background)
    assert built.names == (*NAMES, *["background"] * len(texts))
    if texts:
        torch.testing.assert_close(built.weights[3:, 0], encoder(texts))


def test_a_second_background_is_rejected(encoder):
    with pytest.raises(ValueError, match="'background' already"):
        build_classifier(["dog", "background"], encoder, background="word")
    with pytest.raises(ValueError, match="one of none, word, not"):
        build_classifier(NAMES, encoder, background="all")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "the list of classes is empty"),
        (["dog", "cat", "dog"], "class 2 is called 'dog', as class 0 is"),
        (["dog", " "], "class 1 has an empty name"),
        (["dog\ncat"], r"class 0 has a line break or a control character: 'dog\\ncat'"),
        (["dog\u2028cat"], "class 0 has a line break"),
        (["dog", 7], "class 1 is 7: names are text"),
    ],
)
def test_a_list_of_classes_that_means_nothing_is_rejected(encoder, names, message):
    with pytest.raises(ValueError, match=message):
        build_classifier(names, encoder)


def test_names_with_odd_characters_are_encoded_saved_and_read(encoder, tmp_path):
    names = ["caf\u00e9", "\u72d7", "{}", "{0}", '"quoted"', "%s", "\U0001f469\u200d\U0001f680"]
    built = build_classifier(names, encoder)
    built.save(tmp_path / "odd.safetensors")
    found = Classifier.load(tmp_path / "odd.safetensors")
    assert found.names == tuple(names)
    assert found.encoder == encoder.name
    assert torch.equal(found.weights, built.weights)


def test_a_missing_a_damaged_and_a_foreign_file_are_named(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors' does not exist"):
        Classifier.load(tmp_path / "nowhere.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    save_file({"weights": torch.zeros(1, 1, 2)}, tmp_path / "damaged2.safetensors")
    for name in ("damaged", "damaged2"):
        with pytest.raises(ValueError, match=rf"{name}\.safetensors' is no classifier"):
            Classifier.load(tmp_path / f"{name}.safetensors")


def test_weights_are_one_row_a_name():
    with pytest.raises(ValueError, match=r"weights of 1 names are \(1, T, D\), not \(2, 1, 4\)"):
        Classifier(("dog",), torch.zeros(2, 1, 4), "random")


def test_a_vocabulary_of_another_encoder_is_an_error_that_names_both(classifier):
    check_encoder(classifier, classifier.encoder)
    with pytest.raises(ValueError, match=rf"'{classifier.encoder}', the model's is 'ViT-L@0123'"):
        check_encoder(classifier, "ViT-L@0123")
    with pytest.raises(ValueError, match=rf"8 channels, the classifier of '{classifier.encoder}'"):
        class_scores(embeddings(2), classifier)


def test_a_vocabulary_is_encoded_once(encoder, tmp_path, caplog):
    calls = []

    class Counting:
        dim, name = encoder.dim, encoder.name

        def __call__(self, texts):
            calls.extend(texts)
            return encoder(texts)

    def cached(names=NAMES, **options):
        calls.clear()
        return cached_classifier(names, Counting(), folder=tmp_path, **options)

    first = cached()
    assert calls == NAMES
    second = cached()
    assert calls == []
    assert torch.equal(first.weights, second.weights)
    for options in ({"templates": TEMPLATES}, {"background": "word"}, {"names": NAMES[::-1]}):
        cached(**options)
        assert calls
    cached(templates=TEMPLATES, average=False)
    assert calls
    Counting.name = "another@0123"
    assert cached().encoder == "another@0123"
    for file in tmp_path.iterdir():
        file.write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        assert torch.equal(cached().weights, first.weights)
    assert "it is built again" in caplog.text


def test_scores_are_scaled_cosines_of_any_leading_shape():
    classifier, given = random_classifier(5), embeddings(2, 3, 4)
    found = class_scores(given, classifier, scale=10.0)
    torch.testing.assert_close(found, 10 * given @ classifier.weights[:, 0].T)
    assert class_scores(given[0, 0, 0], classifier).shape == (5,)
    assert class_scores(given[:, :0], classifier).shape == (2, 0, 4, 5)


@pytest.mark.parametrize("reduction", ["max", "mean"])
@pytest.mark.parametrize("chunk", [1, 100, 2**24])
def test_sentences_of_a_name_are_reduced_whatever_the_chunk(reduction, chunk):
    classifier, given = random_classifier(7, sentences=3), embeddings(4)
    products = torch.einsum("md,ctd->mct", given, classifier.weights)
    expected = products.amax(dim=2) if reduction == "max" else products.mean(dim=2)
    found = class_scores(given, classifier, reduction=reduction, chunk=chunk)
    torch.testing.assert_close(found, expected)


def test_an_unknown_reduction_is_rejected():
    with pytest.raises(ValueError, match="max or mean, not 'sum'"):
        class_scores(embeddings(1), random_classifier(2), reduction="sum")


def test_scores_carry_gradients_and_are_exact_in_mixed_precision():
    classifier, given = random_classifier(4), embeddings(3).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = class_scores(given, classifier)
    assert torch.equal(scores, class_scores(given, classifier))
    scores.sum().backward()
    assert given.grad is not None


def test_twenty_thousand_classes_are_scored_in_bounded_memory():
    classifier, given = random_classifier(20_000), embeddings(100)
    expected = class_scores(given, classifier).softmax(dim=1).max(dim=1)
    with Largest() as largest:
        found = top_classes(given, classifier, chunk=2**16, scale=1.0)
    torch.testing.assert_close(found.values[:, 0], expected.values)
    assert torch.equal(found.ids[:, 0], expected.indices)
    assert largest.numel < 2**16 + 20_000 * 8


def test_of_equal_classes_the_earlier_comes_first():
    weights = torch.eye(4)[[3, 0, 3, 0, 3, 1], None]
    doubled = Classifier(tuple("abcdef"), weights, "random")
    given = torch.eye(4)[[3]]
    assert top_classes(given, doubled, k=3).ids.tolist() == [[0, 2, 4]]
    assert top_classes(given, doubled, k=2, softmax=False).ids.tolist() == [[0, 2]]


def test_the_order_is_that_of_a_stable_sort():
    classifier, given = random_classifier(50), embeddings(20).mul(100).round().div(100)
    coarse = replace(classifier, weights=classifier.weights.mul(2).round())
    found = top_classes(given, coarse, k=50, softmax=False)
    scores = class_scores(given, coarse, scale=torch.e)
    expected = scores.sort(dim=1, descending=True, stable=True)
    assert torch.equal(found.ids, expected.indices)
    assert torch.equal(found.values, expected.values)


def test_more_classes_than_there_are_cannot_be_told():
    found = top_classes(embeddings(2, 3), random_classifier(4), k=9)
    assert found.ids.shape == found.values.shape == (2, 3, 4)
    assert top_classes(embeddings(0), random_classifier(4), k=2).ids.shape == (0, 2)


def test_the_background_counts_more_and_is_told_by_its_first_row():
    classifier = random_classifier(4)
    named = replace(classifier, names=("dog", "cat", "background", "background"))
    given = classifier.weights[[3, 0], 0]
    plain = top_classes(given, named)
    assert plain.ids[:, 0].tolist() == [2, 0]
    scaled = top_classes(given, named, background_scale=5.0)
    assert scaled.values[0] > plain.values[0]
