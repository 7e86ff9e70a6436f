import pytest
import torch

from semsam.checkpoint import load_weights
from semsam.checkpoint.checkpointer import Checkpointer
from semsam.checkpoint.frozen import FrozenParts
from semsam.modeling import build_model
from tests.tiny import (
    perturb,
    tiny_caption_cfg,
    tiny_sam_cfg,
    training_record,
    write_language_model,
)


def frozen_cfg(weights):
    cfg = tiny_sam_cfg()
    cfg.MODEL.WEIGHTS = str(weights)
    cfg.MODEL.FREEZE = ["backbone", "decoder.prompt_encoder"]
    return cfg


@pytest.fixture
def base(tmp_path):
    """Weights of the whole model."""
    model = perturb(build_model(tiny_sam_cfg()))
    path = tmp_path / "base.pth"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture
def saved(tmp_path, base):
    """A checkpoint after a change of what is trained."""
    cfg = frozen_cfg(base)
    model = build_model(cfg)
    load_weights(model, base)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 1
    checkpointer = Checkpointer(model, tmp_path / "run", frozen=FrozenParts.from_config(cfg))
    with checkpointer:
        checkpointer.save("model_final", iteration=3)
    return model, tmp_path / "run" / "model_final.pth"


def test_only_what_was_trained_is_stored(saved):
    content = torch.load(saved[1], weights_only=True)
    assert content["model"]
    assert not any(k.startswith(("backbone.", "decoder.prompt_encoder.")) for k in content["model"])
    assert any(k.startswith("decoder.mask_decoder.") for k in content["model"])


def test_a_checkpoint_of_the_trained_part_gives_the_whole_model(saved, base):
    loaded = build_model(tiny_sam_cfg())
    load_weights(loaded, saved[1])
    for name, value in saved[0].state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_resuming_loads_the_frozen_part_too(saved, base, tmp_path):
    resumed = build_model(frozen_cfg(base))
    state = Checkpointer(resumed, tmp_path / "run").resume()
    assert state["iteration"] == 3
    for name, value in saved[0].state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_other_frozen_weights_are_refused(saved, base):
    torch.save(perturb(build_model(tiny_sam_cfg()), seed=1).state_dict(), base)
    with pytest.raises(ValueError, match="trained on other frozen parts"):
        load_weights(build_model(tiny_sam_cfg()), saved[1])


def saved_captioner(folder, language_model, **caption):
    """A checkpoint of a model with a caption head, and of a frozen image encoder."""
    base = folder / "base.pth"
    torch.save(build_model(tiny_sam_cfg()).state_dict(), base)
    cfg = tiny_caption_cfg(language_model, **caption)
    cfg.MODEL.WEIGHTS, cfg.MODEL.FREEZE = str(base), ["backbone"]
    model = build_model(cfg)
    load_weights(model, base)
    with Checkpointer(model, folder, frozen=FrozenParts.from_config(cfg)) as checkpointer:
        checkpointer.save("model_final")
    return folder / "model_final.pth"


def test_another_frozen_language_model_is_named_and_nothing_else(tmp_path):
    path = saved_captioner(tmp_path, write_language_model(tmp_path / "one"))
    other = build_model(tiny_caption_cfg(write_language_model(tmp_path / "other", seed=1)))
    with pytest.raises(ValueError, match=r"other frozen parts: .*LANGUAGE_MODEL") as error:
        load_weights(other, path)
    assert "region_heads.CaptionHead.language_model" in str(error.value)
    assert "backbone" not in str(error.value)


def test_a_trained_language_model_of_another_shape_is_one_short_error(tmp_path):
    one = write_language_model(tmp_path / "one", n_layer=4)
    path = saved_captioner(tmp_path, one, TRAIN_LANGUAGE_MODEL=True)
    other = write_language_model(tmp_path / "other", n_embd=16)
    with pytest.raises(ValueError, match=r"language model is not that of MODEL\.CAPTION") as error:
        load_weights(build_model(tiny_caption_cfg(other)), path)
    message = str(error.value)
    assert "wte.weight: file (9, 32), model (9, 16)" in message
    assert "shapes that differ" in message
    assert len(message) < 10000


def test_everything_is_stored_if_asked_for(base):
    cfg = frozen_cfg(base)
    cfg.SOLVER.SAVE_FROZEN = True
    assert not FrozenParts.from_config(cfg).prefixes


def test_frozen_modules_get_no_gradient_and_stay_in_evaluation_mode(base):
    model = build_model(frozen_cfg(base)).train()
    assert not model.backbone.training
    sum(model([training_record(48, 64)]).values()).backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert model.decoder.mask_decoder.mask_tokens.weight.grad is not None


def test_freezing_what_is_not_there_names_the_parts():
    cfg = tiny_sam_cfg()
    cfg.MODEL.FREEZE = ["encoder"]
    with pytest.raises(ValueError, match=r"cannot freeze 'encoder'.*parts are backbone"):
        build_model(cfg)
