import importlib.util
import json
from pathlib import Path

import pytest

from semsam.modeling.text.classifier import Classifier
from semsam.modeling.text.clip import ClipTextEncoder
from tests.annotation.models import write_clip

TOOL = Path(__file__).parents[2] / "tools" / "build_classifier.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("build_classifier", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("models") / "clip")


def test_a_file_of_names_becomes_a_classifier(tool, clip, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("fire_hydrant\nsky-other-merged\n")
    arguments = [str(tmp_path / "names.txt"), str(tmp_path / "out.safetensors"), "--encoder", clip]
    arguments += ["--templates", "2", "my {}", "--keep-sentences", "--clean-names"]
    assert tool.main([*arguments, "--background", "word", "--device", "cpu"]) == 0
    found = Classifier.load(tmp_path / "out.safetensors")
    assert found.names == ("fire hydrant", "sky", "background")
    assert found.weights.shape == (3, 3, 16)
    assert found.encoder == ClipTextEncoder(clip).name
    assert f"3 rows of 3 x 16, by {found.encoder}" in capsys.readouterr().out


def test_a_table_has_a_row_for_every_class(tool, clip, tmp_path):
    out = tmp_path / "ade20k.safetensors"
    assert tool.main(["ade20k", str(out), "--encoder", clip, "--templates", "{}"]) == 0
    assert len(Classifier.load(out).names) == 150


def test_categories_of_a_dataset_s_json_are_read_in_the_order_of_their_ids(tool, clip, tmp_path):
    categories = [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}]
    (tmp_path / "coco.json").write_text(json.dumps({"categories": categories}))
    out = tmp_path / "coco.safetensors"
    assert tool.main([str(tmp_path / "coco.json"), str(out), "--encoder", clip]) == 0
    assert Classifier.load(out).names == ("cat", "dog")


@pytest.mark.parametrize(
    ("names", "encoder", "message"),
    [
        ("dog\ndog\n", None, "class 1 is called 'dog', as class 0 is"),
        ("", None, "the list of classes is empty"),
        ("dog\n", "./nowhere", "--encoder: cannot load './nowhere'"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tool, clip, tmp_path, capsys, names, encoder, message):
    (tmp_path / "names.txt").write_text(names)
    out = tmp_path / "out.safetensors"
    with pytest.raises(SystemExit):
        tool.main([str(tmp_path / "names.txt"), str(out), "--encoder", encoder or clip])
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_what_is_there_is_not_overwritten(tool, clip, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    out.write_text("mine")
    with pytest.raises(SystemExit):
        tool.main(["ade20k", str(out), "--encoder", clip])
    assert "is there already" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_a_file_of_another_name_is_refused(tool, clip, tmp_path, capsys):
    with pytest.raises(SystemExit):
        tool.main(["ade20k", str(tmp_path / "out.bin"), "--encoder", clip])
    assert "called NAME.safetensors" in capsys.readouterr().err
