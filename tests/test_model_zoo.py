import subprocess
import sys
from pathlib import Path

import pytest
import torch

import semsam
from semsam import model_zoo
from semsam.config import get_cfg
from semsam.modeling import build_model


def tiny_cfg():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.SWIN.EMBED_DIM = 12
    cfg.MODEL.SWIN.DEPTHS = [1, 1, 1, 1]
    cfg.MODEL.SWIN.NUM_HEADS = [1, 2, 3, 4]
    for node in (cfg.MODEL.PIXEL_DECODER, cfg.MODEL.DECODER):
        node.NUM_LAYERS, node.NUM_HEADS, node.DIM_FEEDFORWARD = 1, 4, 32
    cfg.MODEL.PIXEL_DECODER.CONV_DIM = cfg.MODEL.PIXEL_DECODER.MASK_DIM = 32
    cfg.MODEL.DECODER.HIDDEN_DIM = 32
    return cfg


@pytest.fixture
def run_folder(tmp_path):
    """What a training run leaves behind."""
    cfg = tiny_cfg()
    torch.manual_seed(3)
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "model_final.pth")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    return tmp_path


def test_a_run_is_what_it_ended_with_not_what_it_began_with(run_folder):
    cfg = tiny_cfg()
    cfg.MODEL.WEIGHTS = str(run_folder / "begin.pth")
    (run_folder / "config.yaml").write_text(cfg.dump())
    ended = torch.load(run_folder / "model_final.pth", weights_only=True)["model"]
    begun = {name: torch.zeros_like(value) for name, value in ended.items()}
    torch.save({"model": begun}, cfg.MODEL.WEIGHTS)
    model = model_zoo.get(str(run_folder), device="cpu")
    assert torch.equal(
        model.state_dict()["decoder.token_embed.weight"], ended["decoder.token_embed.weight"]
    )


@pytest.mark.parametrize("name", list(model_zoo.MODELS))
def test_every_model_has_a_configuration_that_loads(name):
    cfg = model_zoo.get_config(name)
    assert cfg.is_frozen()
    if name.startswith("semantic-sam"):
        widths = {"t": 96, "b": 128, "l": 192}
        assert widths[name.removeprefix("semantic-sam-swin-")[0]] == cfg.MODEL.SWIN.EMBED_DIM
    else:
        widths = {"b": 768, "l": 1024, "h": 1280}
        assert widths[name.split("vit-")[1][0]] == cfg.MODEL.SAM.EMBED_DIM
        assert (1e-6 if name.startswith("sca") else 1e-5) == cfg.MODEL.SAM.LAYER_NORM_EPS
    three = "reproduce-sam" in name or not name.startswith("semantic-sam")
    assert (3 if three else 6) == cfg.MODEL.DECODER.NUM_TOKENS


def test_a_model_by_name_is_built_without_its_weights_when_asked():
    model = model_zoo.get("semantic-sam-swin-t", device="cpu", trained=False)
    assert not model.training
    # The released file holds 52,980,543 parameters, of which the unused text heads are not ours.
    assert 52e6 < sum(p.numel() for p in model.parameters()) < 53e6


def test_a_model_whose_weights_were_never_released_says_so():
    with pytest.raises(ValueError, match="were released: give weights="):
        model_zoo.get("semantic-sam-swin-l-reproduce-sam", device="cpu")


def test_an_unknown_name_is_answered_with_the_nearest_one():
    with pytest.raises(ValueError, match="did you mean 'semantic-sam-swin-t'"):
        model_zoo.get("semantic-sam-swint")


def test_the_folder_of_a_training_run_is_a_model(run_folder):
    model = model_zoo.get(str(run_folder), device="cpu")
    saved = torch.load(run_folder / "model_final.pth", weights_only=True)["model"]
    for key, value in model.state_dict().items():
        assert torch.equal(value, saved[key])


def test_a_yaml_alone_needs_weights(run_folder, tmp_path):
    (run_folder / "model_final.pth").rename(tmp_path / "kept.pth")
    with pytest.raises(ValueError, match="give weights="):
        model_zoo.get(str(run_folder / "config.yaml"), device="cpu")
    predictor = semsam.SemSamPredictor.from_pretrained(
        str(run_folder / "config.yaml"), device="cpu", weights=str(tmp_path / "kept.pth")
    )
    assert not predictor.model.training


def test_a_file_with_another_digest_is_refused(tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"truncated")
    with pytest.raises(ValueError, match="sha256"):
        model_zoo._fetch(str(file), "0" * 64)


def test_every_public_name_is_there_and_only_those():
    for name in semsam.__all__:
        assert getattr(semsam, name) is not None
    with pytest.raises(AttributeError, match="SemSamPredicter"):
        semsam.SemSamPredicter  # noqa: B018


def test_importing_semsam_imports_no_torch():
    code = "import sys, semsam; assert 'torch' not in sys.modules and 'cv2' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(semsam.__file__).parents[1])
