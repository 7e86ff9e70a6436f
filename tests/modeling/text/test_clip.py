import json

import pytest
import torch

from semsam.config import get_cfg
from semsam.modeling.build import build_text_encoder
from semsam.modeling.text.clip import ClipTextEncoder, OpenClip, load_clip
from semsam.modeling.text.encoder import is_same_encoder, model_label
from tests.annotation.models import TEXT_LIMIT, write_clip, write_open_clip

CPU = torch.device("cpu")
TEXTS = ["a red car", "dog", "the wall of a roof"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module")
def encoder(folder):
    return load_clip(folder, CPU, "CLIP.MODEL")


def test_a_phrase_beyond_the_text_limit_is_cut_off(encoder):
    long = "a" * (TEXT_LIMIT + 5)
    assert torch.equal(encoder.encode_text([long]), encoder.encode_text([long + "b"]))


def test_a_folder_that_is_not_there_is_named():
    with pytest.raises(RuntimeError, match=r"CLIP\.MODEL: cannot load './nowhere': there is no"):
        load_clip("./nowhere", CPU, "CLIP.MODEL")


def test_a_folder_without_a_file_names_the_file(tmp_path):
    with pytest.raises(RuntimeError, match=r"no config\.json"):
        load_clip(str(tmp_path), CPU, "CLIP.MODEL")


def test_a_name_of_open_clip_needs_weights():
    pytest.importorskip("open_clip")
    with pytest.raises(ValueError, match="ARCHITECTURE:WEIGHTS"):
        OpenClip("open_clip:ViT-B-32", CPU, "CLIP.MODEL")


def test_the_text_encoder_gives_the_features_of_the_whole_model(folder, encoder):
    text_encoder = ClipTextEncoder(folder)
    found = text_encoder(TEXTS)
    assert torch.equal(found, encoder.encode_text(TEXTS))
    assert found.shape == (3, text_encoder.dim)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))


def test_the_text_encoder_of_open_clip_gives_the_features_of_the_whole_model(tmp_path):
    pytest.importorskip("open_clip")
    write_open_clip(tmp_path)
    text_encoder = ClipTextEncoder(f"local-dir:{tmp_path}")
    expected = load_clip(f"local-dir:{tmp_path}", CPU, "CLIP.MODEL").encode_text(TEXTS)
    assert torch.equal(text_encoder(TEXTS), expected)
    assert text_encoder.dim == 16
    assert text_encoder.name.startswith(f"{tmp_path.name}@")


def test_an_architecture_of_open_clip_takes_its_weights_from_a_file(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    model = write_open_clip(tmp_path)
    written = json.loads((tmp_path / "open_clip_config.json").read_text())
    architecture = tmp_path / "tiny-of-a-test.json"
    architecture.write_text(json.dumps(written["model_cfg"]))
    open_clip.add_model_config(architecture)
    weights = tmp_path / "open_clip_pytorch_model.bin"
    text_encoder = ClipTextEncoder(f"open_clip:tiny-of-a-test:{weights}")
    tokens = open_clip.get_tokenizer("tiny-of-a-test")(TEXTS)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model.encode_text(tokens), dim=-1)
    torch.testing.assert_close(text_encoder(TEXTS), expected)
    label, _, digest = text_encoder.name.partition("@")
    assert label == "open_clip:tiny-of-a-test:open_clip_pytorch_model.bin"
    assert digest == ClipTextEncoder(f"local-dir:{tmp_path}").name.partition("@")[2]


def test_an_encoder_has_one_name_wherever_its_folder_lies(folder, tmp_path):
    copied = write_clip(tmp_path / "elsewhere" / "clip")
    assert ClipTextEncoder(copied).name == ClipTextEncoder(folder).name


def test_another_text_tower_has_another_name_and_another_image_tower_the_same(tmp_path, folder):
    from transformers import CLIPModel, CLIPProcessor

    names = {}
    for key in ("text_projection.weight", "visual_projection.weight"):
        model = CLIPModel.from_pretrained(folder)
        model.state_dict()[key] += 1.0
        model.save_pretrained(tmp_path / key / "clip")
        CLIPProcessor.from_pretrained(folder).save_pretrained(tmp_path / key / "clip")
        names[key] = ClipTextEncoder(str(tmp_path / key / "clip")).name
    own = ClipTextEncoder(folder).name
    assert names["visual_projection.weight"] == own
    assert not is_same_encoder(names["text_projection.weight"], own)


def test_the_configuration_names_the_encoder(folder):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    with pytest.raises(ValueError, match=r"MODEL\.TEXT\.MODEL is empty"):
        build_text_encoder(cfg)
    cfg.MODEL.TEXT.MODEL = folder
    assert build_text_encoder(cfg).name == ClipTextEncoder(folder).name


@pytest.mark.parametrize(
    ("model", "label"),
    [
        ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch32"),
        ("hf-hub:laion/CLIP", "laion/CLIP"),
        ("local-dir:/models/CLIP", "CLIP"),
        ("open_clip:ViT-L-14:datacomp_xl_s13b_b90k", "open_clip:ViT-L-14:datacomp_xl_s13b_b90k"),
    ],
)
def test_a_label_tells_the_model_and_not_where_it_lies(model, label):
    assert model_label(model) == label


def test_names_without_a_digest_are_compared_by_label():
    assert is_same_encoder("clip@0123", "other@0123")
    assert not is_same_encoder("clip@0123", "clip@4567")
    assert is_same_encoder("clip", "clip@0123")
    assert not is_same_encoder("clip", "other@0123")
