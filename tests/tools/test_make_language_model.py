import importlib.util
from pathlib import Path

import pytest

from semsam.modeling.text.language_model import CaptionTokenizer, load_language_model
from tests.data.test_sa1b_captions import write_scene

TOOL = Path(__file__).parents[2] / "tools" / "make_language_model.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make_language_model", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_model_knows_the_words_of_the_captions_and_writes_them_back(tool, tmp_path):
    write_scene(tmp_path / "scenes")
    arguments = ["--dataset", f"sa1b_captions://{tmp_path / 'scenes'}", "--width", "16"]
    assert tool.main([*arguments, "--output", str(tmp_path / "model")]) == 0
    tokenizer = CaptionTokenizer(str(tmp_path / "model"))
    ids, mask = tokenizer.encode(["a red house", "a red boat"])
    assert tokenizer.decode(ids) == ["a red house", "a red"]
    assert mask.all()
    model = load_language_model(str(tmp_path / "model"))
    assert model.get_input_embeddings().weight.shape == (5, 16)


def test_what_is_there_is_not_overwritten(tool, tmp_path, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit):
        tool.main(["--dataset", "sa1b_captions://scenes", "--output", str(tmp_path / "model")])
    assert f"{tmp_path / 'model'} is there already" in capsys.readouterr().err
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"
