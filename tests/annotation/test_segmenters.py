import json

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from semsam.annotation import segmenters
from semsam.annotation.segmenters import Segmenter

from .segmenter_models import (
    NAMES,
    write_mask2former,
    write_maskformer,
    write_oneformer,
    write_segformer,
)

WRITERS = {
    "segformer": write_segformer,
    "mask2former": write_mask2former,
    "maskformer": write_maskformer,
    "oneformer": write_oneformer,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("segmenters")
    return {kind: write(root / kind) for kind, write in WRITERS.items()}


def photo(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("kind", WRITERS)
def test_every_pixel_of_every_photo_has_a_class(folders, kind):
    photos = [photo(80, 100), photo(60, 40, 1), photo(80, 100, 2)]
    maps = Segmenter(folders[kind], device="cpu", batch_size=2).segment(photos)
    assert [one.shape for one in maps] == [(80, 100), (60, 40), (80, 100)]
    assert all(one.dtype == np.uint8 and one.max() < len(NAMES) for one in maps)
    assert any(len(np.unique(one)) > 1 for one in maps)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_map_does_not_depend_on_the_other_photos(folders, kind):
    segmenter = Segmenter(folders[kind], device="cpu")
    photos = [photo(80, 100), photo(60, 40, 1), photo(80, 100, 2)]
    together = segmenter.segment(photos)
    for image, expected in zip(photos, together, strict=True):
        assert (segmenter.segment([image])[0] != expected).mean() < 1e-3


@pytest.mark.parametrize("kind", ["mask2former", "maskformer"])
def test_maps_are_those_of_transformers_postprocessing(folders, kind):
    segmenter = Segmenter(folders[kind], device="cpu")
    image = photo(80, 100)
    processor = hf.AutoImageProcessor.from_pretrained(folders[kind])
    with torch.inference_mode():
        outputs = segmenter.model(**processor(images=Image.fromarray(image), return_tensors="pt"))
    expected = processor.post_process_semantic_segmentation(outputs, target_sizes=[(80, 100)])[0]
    assert (segmenter.segment([image])[0] != expected.numpy()).mean() < 1e-3


def test_classes_a_few_at_a_time_give_the_same_map(folders, monkeypatch):
    segmenter = Segmenter(folders["segformer"], device="cpu")
    expected = segmenter.segment([photo(80, 100)])[0]
    monkeypatch.setattr(segmenters, "_SCORES_AT_ONCE", 80 * 100)
    assert np.array_equal(segmenter.segment([photo(80, 100)])[0], expected)


def test_names_are_the_model_s_own_or_those_of_a_table(folders, tmp_path):
    assert Segmenter(folders["segformer"], device="cpu").labels == NAMES
    table = tmp_path / "names.json"
    table.write_text(json.dumps(["a", "b", "c", "d", "e"]))
    assert Segmenter(folders["segformer"], str(table), "cpu").labels[4] == "e"


def test_no_photo_gives_no_map(folders):
    assert Segmenter(folders["segformer"], device="cpu").segment([]) == []


def test_a_missing_folder_is_an_error_that_names_it():
    with pytest.raises(RuntimeError, match=r"SEGMENTERS: cannot load './nowhere'"):
        Segmenter("./nowhere", device="cpu", key="SEGMENTERS")


def test_a_folder_without_its_processor_is_an_error_that_names_the_file(tmp_path):
    folder = write_segformer(tmp_path / "model")
    for path in (tmp_path / "model").glob("*processor*"):
        path.unlink()
    with pytest.raises(RuntimeError, match=r"preprocessor_config\.json"):
        Segmenter(folder, device="cpu")


def test_a_model_that_is_no_segmenter_is_an_error(tmp_path):
    config = hf.GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=10)
    hf.GPT2Model(config).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="cannot load"):
        Segmenter(str(tmp_path), device="cpu")


@pytest.mark.parametrize("shape", [(7, 5, 6), (3, 1, 1), (300, 2, 3)])
@pytest.mark.parametrize("align_corners", [True, False])
def test_classes_that_win_nowhere_change_nothing(shape, align_corners):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(shape, generator=generator)
    # All but a few classes far below.
    scores[3:] -= 4
    size = (19, 23)
    enlarged = torch.nn.functional.interpolate(
        scores[None], size=size, mode="bilinear", align_corners=align_corners
    )
    found = segmenters._best_class(scores, size, align_corners)
    assert np.array_equal(found, enlarged[0].argmax(dim=0).numpy())
    assert found.dtype == (np.uint8 if shape[0] <= 256 else np.int32)


def test_a_class_that_wins_only_between_cells_is_found():
    # First at one cell, first at the other, and second at both.
    scores = torch.tensor([[[10.0, 0.0]], [[0.0, 10.0]], [[9.0, 9.0]]])
    assert 2 in segmenters._best_class(scores, (1, 9), True)


def test_scores_that_are_not_finite_are_an_error():
    with pytest.raises(RuntimeError, match="not finite"):
        segmenters._best_class(torch.full((2, 3, 3), float("nan")), (4, 4), True)
