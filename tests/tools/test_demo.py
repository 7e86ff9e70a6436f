"""``tools/demo.py``: files in, pictures and json out."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pycocotools import mask as coco_mask

from semsam.config import load_cfg
from semsam.modeling import build_model
from semsam.modeling.text.classifier import Classifier
from tests.annotation.models import write_clip
from tests.modeling.test_naming import named_cfg
from tests.tiny import perturb, tiny_caption_cfg, tiny_ovsam_cfg, write_language_model

from .tiny_run import CONFIG

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A tiny model as a training run leaves it, with two masks a click."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    torch.manual_seed(0)
    model = build_model(load_cfg(folder / "config.yaml"))
    torch.save({"model": model.state_dict()}, folder / "model_final.pth")
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.jpg", (60, 80)), ("b.png", (90, 50))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("demo", ROOT / "tools" / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def demo(tool, run_folder, tmp_path):
    """Run the command line with the tiny model; output goes to ``tmp_path / "out"``."""

    def run(*arguments):
        fixed = ["--output", tmp_path / "out", "--model", run_folder, "--min-size", 64]
        words = [str(word) for word in (*arguments, *fixed, "--device", "cpu")]
        return tool.main(tool.parse_args(words))

    return run


def test_a_folder_of_photos_gets_pictures_and_masks_for_each_prompt(demo, photos, tmp_path):
    prompts = ("--point", 10, 20, "--point", 30, 30, "--box", 5, 5, 40, 50)
    assert demo(photos, *prompts) == 0
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} == {
        *(f"{name}_prompt{i}.png" for name in "ab" for i in range(3)),
        "a.json",
        "b.json",
    }
    answer = json.loads((out / "b.json").read_text())
    assert [prompt.get("point") for prompt in answer["prompts"]] == [[10, 20], [30, 30], None]
    assert answer["prompts"][2]["box"] == [5, 5, 40, 50]
    for mask in answer["prompts"][0]["masks"]:
        pixels = coco_mask.decode(mask["segmentation"])
        assert pixels.shape == (90, 50)
        assert pixels.sum() == mask["area"]
    assert [mask["level"] for mask in answer["prompts"][0]["masks"]] == [1, 2]


def test_without_a_prompt_the_middle_is_clicked(demo, photos, tmp_path):
    assert demo(photos / "a.jpg", "--levels", 2) == 0
    (prompt,) = json.loads((tmp_path / "out/a.json").read_text())["prompts"]
    assert prompt["point"] == [40, 30]
    assert [mask["level"] for mask in prompt["masks"]] == [2]


def test_everything_in_the_photos_of_a_glob(demo, photos, tmp_path):
    assert demo(photos / "*.png", "--everything", "--points-per-side", 2) == 0
    assert (tmp_path / "out/b_everything.png").exists()
    assert "everything" in json.loads((tmp_path / "out/b.json").read_text())
    assert not (tmp_path / "out/a.json").exists()


def test_an_unreadable_file_is_named_and_the_others_are_done(demo, photos, tmp_path, capsys):
    data = (photos / "a.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(data[: len(data) // 2])
    assert demo(photos, photos / "absent.jpg") == 1
    said = capsys.readouterr().out
    assert "cut.jpg" in said
    assert "absent.jpg" in said
    assert (tmp_path / "out/a.json").exists()
    assert (tmp_path / "out/b.json").exists()


def test_no_image_at_all_is_an_error(demo, tmp_path, capsys):
    assert demo(tmp_path / "*.jpg") == 1
    assert "no image" in capsys.readouterr().out


def test_a_configuration_can_be_changed_from_the_command_line(demo, photos, tmp_path):
    for click_type in (0, 1):
        opts = ("--opts", f"MODEL.DECODER.INFERENCE_CLICK_TYPE={click_type}")
        assert demo(photos / "a.jpg", *opts) == 0
        (prompt,) = json.loads((tmp_path / "out/a.json").read_text())["prompts"]
        scores = [mask["predicted_iou"] for mask in prompt["masks"]]
        if click_type == 0:
            first = scores
    assert scores != first


def test_photos_of_one_name_keep_apart(tool):
    paths = [Path("x/a.jpg"), Path("y/a.png"), Path("z/b.png")]
    assert tool.output_names(paths) == ["a", "a-2", "b"]


def test_captions_are_written_below_masks_and_into_the_json(tool, photos, tmp_path):
    folder = tmp_path / "captioner"
    folder.mkdir()
    cfg = tiny_caption_cfg(write_language_model(tmp_path / "language_model"), MAX_LENGTH=6)
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, folder / "model_final.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    words = ["--output", tmp_path / "out", "--model", folder, "--device", "cpu", "--caption"]
    words += ["--everything", "--points-per-side", 2, "--box", 4, 5, 30, 40, "--point", 9, 9]
    words += ["--task", "recognition", "--text-prefix", "cat on"]
    assert tool.main(tool.parse_args([str(word) for word in (photos / "a.jpg", *words)])) == 0
    content = json.loads((tmp_path / "out" / "a.json").read_text())
    assert [next(iter(prompt)) for prompt in content["prompts"]] == ["point", "box"]
    described = [*content["prompts"], *content["everything"]]
    assert all(item["caption"].startswith("cat on") for item in described)
    assert (tmp_path / "out" / "a_prompt1.png").is_file()


def test_what_is_asked_of_captions_needs_captions(tool, capsys):
    with pytest.raises(SystemExit):
        tool.parse_args(["a.jpg", "--output", "out", "--task", "recognition"])
    assert "go with --caption" in capsys.readouterr().err


@pytest.fixture
def name(tool, photos, tmp_path):
    """Run the command line on a click, with a tiny model that names masks."""
    cfg = tiny_ovsam_cfg(EMBED_DIM=16)
    cfg.MODEL.TEXT.MODEL = write_clip(tmp_path / "clip")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(cfg.dump())
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, run / "model_final.pth")
    opts = ["--model", run, "--output", tmp_path / "out", "--device", "cpu", "--point", 10, 20]

    def call(classes):
        words = [photos / "a.jpg", "--classes", classes, *opts]
        return tool.main(tool.parse_args([str(word) for word in words]))

    return call


def test_masks_are_named_by_classes(tool, name, tmp_path):
    (tmp_path / "names.txt").write_text("dog\n\na wheel \n")
    for classes in ("dog, a wheel", tmp_path / "names.txt"):
        assert name(classes) == 0
        found = json.loads((tmp_path / "out" / "a.json").read_text())["prompts"][0]["masks"]
        assert {mask["class_name"] for mask in found} <= {"dog", "a wheel"}
        assert all(0.5 <= mask["class_score"] <= 1 for mask in found)
    with pytest.raises(SystemExit):
        tool.parse_args(["a.jpg", "--output", "out", "--classes", "dog", "--caption"])


def test_names_with_odd_characters_are_written_as_they_are(name, tmp_path):
    odd = ["caf\u00e9", "\u72d7", "{}", '"quoted" %s', "\U0001f469\u200d\U0001f680"]
    (tmp_path / "names.json").write_text(json.dumps(odd))
    assert name(tmp_path / "names.json") == 0
    found = json.loads((tmp_path / "out" / "a.json").read_text())["prompts"][0]["masks"]
    assert {mask["class_name"] for mask in found} <= set(odd)


def test_classes_that_cannot_be_used_are_an_error_in_one_line(name, tmp_path, capsys):
    weights = torch.nn.functional.normalize(torch.randn(1, 1, 16), dim=-1)
    foreign = tmp_path / "foreign.safetensors"
    Classifier(("dog",), weights, "other-clip@0123").save(foreign)
    for classes, message in (
        ("", "--classes: the list of classes is empty"),
        ("dog, cat, dog", "--classes: class 2 is called 'dog', as class 0 is"),
        (tmp_path / "none.txt", "none.txt' does not exist"),
        (foreign, "text encoder 'other-clip@0123', the model's is 'clip'"),
    ):
        assert name(classes) == 1
        said = capsys.readouterr().out
        assert message in said
        assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_each_pixel_of_a_photo_goes_to_a_segment_with_a_class(tool, photos, tmp_path):
    cfg = named_cfg(tmp_path)
    cfg.MODEL.NAMING.OBJECT_MASK_THRESHOLD, cfg.MODEL.NAMING.OVERLAP_THRESHOLD = 0.0, 0.0
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(cfg.dump())
    torch.manual_seed(0)
    torch.save({"model": perturb(build_model(cfg)).state_dict()}, run / "model_final.pth")
    words = ["--model", run, "--output", tmp_path / "out", "--device", "cpu", "--segment"]
    words += ["--classes", "pets", "--things", "cat, dog"]
    assert tool.main(tool.parse_args([str(word) for word in (photos / "a.jpg", *words)])) == 0
    content = json.loads((tmp_path / "out" / "a.json").read_text())
    assert "prompts" not in content
    assert content["segments"]
    masks = [coco_mask.decode(entry["segmentation"]) for entry in content["segments"]]
    assert np.max(np.sum(masks, axis=0)) == 1
    assert {entry["class_name"] for entry in content["segments"]} <= {"cat", "dog", "sky"}
    assert (tmp_path / "out" / "a_segments.png").is_file()
    with pytest.raises(SystemExit):
        tool.parse_args(["a.jpg", "--output", "out", "--segment"])
