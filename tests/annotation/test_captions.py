import numpy as np
import pytest
import torch

from semsam import RegionCaptioner
from semsam.annotation.captions import BlipCaptioner
from semsam.annotation.records import MaskedPhoto
from semsam.annotation.region_captions import RegionCaptionLabeler
from semsam.modeling import build_model
from tests.tiny import tiny_caption_cfg, write_language_model

from .models import EOS, write_blip

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_blip(tmp_path_factory.mktemp("blip"))


def patches(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *s), generator=generator, dtype=torch.uint8) for s in sizes]


def test_captions_are_those_of_the_model_called_patch_by_patch(folder):
    from transformers import BlipForConditionalGeneration, BlipProcessor

    given = patches((20, 30), (50, 8), (1, 1), (48, 48), (90, 10))
    found = BlipCaptioner(folder, CPU, max_new_tokens=6, batch_size=2)(given)
    model = BlipForConditionalGeneration.from_pretrained(folder).eval()
    processor = BlipProcessor.from_pretrained(folder)
    for patch, caption in zip(given, found, strict=True):
        image = patch.permute(1, 2, 0).numpy()
        inputs = processor(image, return_tensors="pt", input_data_format="channels_last")
        ids = model.generate(**inputs, max_new_tokens=6)
        assert caption == processor.decode(ids[0], skip_special_tokens=True)
    assert len(set(found)) > 1


def test_a_caption_that_ends_early_does_not_change_beside_longer_ones(folder):
    captioner = BlipCaptioner(folder, CPU, max_new_tokens=12, batch_size=16)
    bright = torch.full((3, 20, 20), 255, dtype=torch.uint8)
    given = [*patches(*[(9 + i, 30 - i) for i in range(12)]), bright]
    ids = captioner.generate(given)
    lengths = {row.index(EOS) if EOS in row else len(row) for row in ids}
    assert len(lengths) > 1, "the fixture needs captions of different lengths"
    assert captioner(given) == [captioner([patch])[0] for patch in given]


def test_no_patches_have_no_captions(folder):
    assert BlipCaptioner(folder, CPU)([]) == []


def test_a_folder_of_another_model_is_refused(tmp_path, folder):
    from .models import write_clip

    with pytest.raises(RuntimeError, match=r"OPEN_SET\.BLIP: cannot load"):
        BlipCaptioner(write_clip(tmp_path), CPU, key="OPEN_SET.BLIP")


@pytest.fixture(scope="module")
def sca(tmp_path_factory):
    folder = write_language_model(tmp_path_factory.mktemp("language_model"))
    torch.manual_seed(0)
    cfg = tiny_caption_cfg(folder, MAX_LENGTH=6)
    return cfg, build_model(cfg).eval()


def photo(name, *boxes):
    image = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    return MaskedPhoto(name, image, [{"bbox": box} for box in boxes])


def test_every_mask_is_described_as_the_captioner_describes_its_box(sca):
    captioner = RegionCaptioner(sca[1], regions_per_batch=2)
    given = photo("a.jpg", [4, 6, 35, 23], [50, 10, 28, 36], [0, 0, 79, 47])
    empty, labels = RegionCaptionLabeler(captioner).label([photo("none.jpg"), given])
    assert empty.regions == []
    expected = captioner.caption(boxes=[[4, 6, 40, 30], [50, 10, 79, 47], [0, 0, 80, 48]])
    assert [r["caption"] for r in labels.regions] == expected.pred_captions
    scores = [r["caption_score"] for r in labels.regions]
    assert scores == pytest.approx(expected.caption_scores.tolist(), abs=1e-5)


def test_a_box_that_counts_the_last_pixel_stays_inside_the_photo(sca):
    labeler = RegionCaptionLabeler(RegionCaptioner(sca[1]))
    inside, outside = (
        labeler.label([photo("a.jpg", box)]) for box in ([0, 0, 79, 47], [0, 0, 80, 48])
    )
    assert inside == outside


def test_the_configuration_names_a_trained_model(sca, tmp_path):
    cfg, model = sca
    path = tmp_path / "sca.yaml"
    path.write_text(cfg.dump())
    torch.save({"model": model.state_dict()}, tmp_path / "sca.pth")
    cfg = cfg.clone()
    cfg.ANNOTATION.REGION_CAPTION.MODEL = str(path)
    cfg.ANNOTATION.REGION_CAPTION.WEIGHTS = str(tmp_path / "sca.pth")
    given = photo("a.jpg", [4, 6, 35, 23])
    expected = RegionCaptionLabeler(RegionCaptioner(model)).label([given])
    assert RegionCaptionLabeler(cfg).label([given]) == expected
