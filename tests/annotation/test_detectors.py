import logging

import numpy as np
import pytest
import torch
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor, BertConfig, BertModel

from semsam.annotation.detectors import ZeroShotDetector

from .detector_models import write_grounding_dino, write_owl

CPU = torch.device("cpu")
PHRASES = ["dog", "traffic light", "tree"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detectors")
    return {
        "dino": write_grounding_dino(folder / "dino"),
        "mm": write_grounding_dino(folder / "mm", is_mm=True),
        "owl": write_owl(folder / "owl", 1),
        "owl2": write_owl(folder / "owl2", 2),
    }


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (48 + 16 * i, 64, 3), dtype=np.uint8) for i in range(3)]


def make(name, **settings):
    settings = {"threshold": 0.0, "nms_threshold": 1.0, "max_boxes": 1000, **settings}
    return ZeroShotDetector(name, CPU, dtype=torch.float32, **settings)


def reference(name, image, text):
    """Boxes and scores above 0, as transformers gives them."""
    processor = AutoProcessor.from_pretrained(name)
    model = AutoModelForZeroShotObjectDetection.from_pretrained(name).eval()
    inputs = processor(
        images=torch.from_numpy(image).permute(2, 0, 1),
        text=text,
        max_length=24,
        truncation=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        output = model(**inputs)
    result = processor.post_process_grounded_object_detection(
        output, threshold=0.0, target_sizes=[image.shape[:2]], text_labels=text
    )[0]
    return result["boxes"].numpy(), result["scores"].numpy()


def inside(boxes, scores, image):
    """Boxes of some size, cut at the photo's edges, the best first."""
    height, width = image.shape[:2]
    boxes = np.clip(boxes, 0, [width, height, width, height])
    keep = (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1) & (scores > 0)
    order = np.argsort(-scores[keep], kind="stable")
    return boxes[keep][order], scores[keep][order]


@pytest.mark.parametrize("name", ["owl", "owl2"])
def test_lists_of_phrases_are_found_where_transformers_finds_them(models, images, name):
    text = [[f"a photo of a {phrase}" for phrase in PHRASES]]
    boxes, scores = inside(*reference(models[name], images[0], text), images[0])
    found = make(models[name])([images[0]], [PHRASES])[0]
    assert len(found) == len(boxes) > 5
    np.testing.assert_allclose([f.score for f in found], scores, atol=1e-6)
    np.testing.assert_allclose([f.box for f in found], boxes, atol=1e-4)
    assert {f.phrase for f in found} <= {0, 1, 2}


def test_a_word_of_one_token_is_found_where_transformers_finds_it(models, images):
    # Of one phrase of one token the mean of its tokens is their maximum.
    processor = AutoProcessor.from_pretrained(models["dino"])
    model = AutoModelForZeroShotObjectDetection.from_pretrained(models["dino"]).eval()
    pixels = torch.from_numpy(images[1]).permute(2, 0, 1)
    inputs = processor(images=pixels, text="x.", return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs)
    boxes = processor.post_process_grounded_object_detection(
        output, threshold=0.0, target_sizes=[images[1].shape[:2]]
    )[0]["boxes"]
    # [CLS] x . [SEP]: transformers takes the best token, also the full stop.
    scores = output.logits[0, :, 1].sigmoid()
    boxes, scores = inside(boxes.numpy(), scores.numpy(), images[1])
    found = make(models["dino"])([images[1]], [["x"]])[0]
    assert len(found) == len(boxes) > 2
    np.testing.assert_allclose([f.score for f in found], scores, atol=1e-5)
    np.testing.assert_allclose([f.box for f in found], boxes, atol=1e-3)


def test_a_phrase_scores_the_mean_of_its_own_tokens(models, images):
    detector = make(models["dino"])
    processor = AutoProcessor.from_pretrained(models["dino"])
    text = processor.tokenizer("ab. c de.")
    assert len(text["input_ids"]) == 2 + 3 + 4
    inputs = processor(
        images=torch.from_numpy(images[0]).permute(2, 0, 1), text="ab. c de.", return_tensors="pt"
    )
    with torch.no_grad():
        tokens = detector.family.model(**inputs).logits[0].sigmoid()
    scores = torch.stack([tokens[:, 1:3].mean(dim=1), tokens[:, 4:7].mean(dim=1)], dim=1)
    found = detector([images[0]], [["AB.", "c  de?"]])[0]
    assert {f.phrase for f in found} == {0, 1}
    for box in found:
        assert (scores[:, box.phrase] - box.score).abs().min() < 1e-5


def test_phrases_beyond_the_limit_of_the_text_become_further_texts(tmp_path, images):
    detector = make(write_grounding_dino(tmp_path / "dino", max_text_len=16))
    phrases = ["dog", "tree", "a-long-word", "car", "abcdefghijklmnopqrstuvwxyz"]
    assert detector.family.split(phrases) == [[0, 1], [2], [3], [4]]
    together = detector([images[0]], [phrases])[0]
    alone = [detector([images[0]], [[phrase]])[0] for phrase in phrases[2:4]]
    assert {2, 3, 4} < {f.phrase for f in together}
    for index, boxes in enumerate(alone, 2):
        own = [f.box for f in together if f.phrase == index]
        np.testing.assert_allclose(own, [f.box for f in boxes], atol=1e-3)


@pytest.mark.parametrize("name", ["dino", "mm", "owl", "owl2"])
def test_photos_of_a_batch_do_not_disturb_each_other(models, images, name):
    phrases = [PHRASES, [], ["car"]]
    together = make(models[name], batch_size=4)(images, phrases)
    assert together[1] == []
    for image, its_phrases, boxes in zip(images, phrases, together, strict=True):
        alone = make(models[name])([image], [its_phrases])[0]
        np.testing.assert_allclose([f.score for f in boxes], [f.score for f in alone], atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["dino", "mm", "owl", "owl2"])
def test_half_the_precision_finds_about_the_same(models, images, name, dtype):
    half = ZeroShotDetector(models[name], CPU, threshold=0.0, dtype=dtype)
    assert half.family.model.dtype == dtype
    best = make(models[name])(images[:1], [PHRASES])[0][0]
    found = half(images[:1], [PHRASES])[0]
    assert any(abs(f.score - best.score) < 0.1 for f in found)


def test_nothing_to_look_for_is_found_nowhere(models, images):
    assert make(models["owl2"])(images, [[], [], []]) == [[], [], []]
    assert make(models["owl2"])([], []) == []


def test_overlapping_boxes_of_one_phrase_are_one_and_of_two_phrases_two(models):
    detector = make(models["owl2"], nms_threshold=0.5)
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10], [20, 0, 30, 10.0]])
    scores, phrases = torch.tensor([0.5, 0.9, 0.7, 0.6]), torch.tensor([0, 0, 1, 0])
    found = detector._merge(
        [(boxes[:2], scores[:2], phrases[:2]), (boxes[2:], scores[2:], phrases[2:])]
    )
    assert [(round(f.score, 1), f.phrase) for f in found] == [(0.9, 0), (0.7, 1), (0.6, 0)]


def test_the_threshold_and_the_number_of_boxes_are_kept(models, images):
    every = make(models["owl2"])([images[0]], [PHRASES])[0]
    middle = every[len(every) // 2].score
    some = make(models["owl2"], threshold=middle)([images[0]], [PHRASES])[0]
    assert some == [f for f in every if f.score > middle]
    assert make(models["owl2"], max_boxes=2)([images[0]], [PHRASES])[0] == every[:2]
    assert make(models["owl2"], threshold=1.0)([images[0]], [PHRASES]) == [[]]


def test_memory_that_runs_out_halves_the_batches(models, images, caplog):
    detector = make(models["owl2"], batch_size=4)
    images = [images[0], images[0].copy(), images[0]]
    expected = detector(images, [PHRASES] * 3)
    full = detector.family

    class Small:
        split = full.split

        def __call__(self, jobs):
            if len(jobs) > 1:
                raise RuntimeError("CUDA out of memory")
            return full(jobs)

    detector.family = Small()
    with caplog.at_level(logging.WARNING):
        found = detector(images, [PHRASES] * 3)
    assert "out of memory in the detector" in caplog.text
    for boxes, others in zip(found, expected, strict=True):
        np.testing.assert_allclose([f.score for f in boxes], [f.score for f in others], atol=1e-5)


def test_a_model_that_detects_nothing_is_named_with_its_key(tmp_path):
    settings = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    BertModel(BertConfig(vocab_size=20, intermediate_size=8, **settings)).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match=r"^A\.B: cannot load"):
        ZeroShotDetector(str(tmp_path), CPU, "A.B")
    with pytest.raises(RuntimeError, match="there is no such folder"):
        ZeroShotDetector(str(tmp_path / "none"), CPU, "A.B")


@pytest.mark.parametrize("bad", [{"threshold": 1.5}, {"nms_threshold": -1}, {"max_boxes": 0}])
def test_numbers_out_of_range_are_rejected(bad):
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        ZeroShotDetector("unused", CPU, **bad)
