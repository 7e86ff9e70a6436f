from pathlib import Path
from textwrap import dedent

import pytest

from semsam.config import CfgNode, configurable, get_cfg, load_cfg

CONFIGS = Path(__file__).parents[2] / "configs"


def write(path: Path, text: str) -> str:
    path.write_text(dedent(text))
    return str(path)


def test_a_leaf_overrides_its_base_and_the_base_overrides_the_defaults(tmp_path):
    write(tmp_path / "base.yaml", "SOLVER: {MAX_ITER: 7, GAMMA: 0.5}\nSEED: 3\n")
    leaf = write(tmp_path / "leaf.yaml", "_BASE_: base.yaml\nSOLVER: {MAX_ITER: 9}\n")
    cfg = load_cfg(leaf)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.GAMMA, cfg.SEED) == (9, 0.5, 3)
    assert cfg.SOLVER.BASE_LR == get_cfg().SOLVER.BASE_LR


def test_a_loaded_configuration_is_frozen(tmp_path):
    cfg = load_cfg(write(tmp_path / "a.yaml", "SEED: 3\n"))
    with pytest.raises(AttributeError, match="SEED"):
        cfg.SEED = 4


def test_every_unknown_key_of_a_file_is_named_with_the_nearest_known_one(tmp_path):
    file = write(tmp_path / "a.yaml", "MODEL: {DECODR: {NUM_TOKENS: 3}}\nSOLVER: {MAX_ITR: 1}\n")
    with pytest.raises(ValueError, match=r"a\.yaml") as error:
        load_cfg(file)
    assert "'MODEL.DECODR' (did you mean 'DECODER'?)" in str(error.value)
    assert "'SOLVER.MAX_ITR' (did you mean 'MAX_ITER'?)" in str(error.value)


def test_a_value_of_another_type_is_an_error_that_names_the_file_and_the_key(tmp_path):
    file = write(tmp_path / "a.yaml", "SOLVER: {MAX_ITER: many}\n")
    with pytest.raises(ValueError, match=r"a\.yaml.*MAX_ITER"):
        load_cfg(file)


def test_a_section_cannot_be_replaced_by_a_value(tmp_path):
    file = write(tmp_path / "a.yaml", "SOLVER: 3\n")
    with pytest.raises(ValueError, match="SOLVER"):
        load_cfg(file)


def test_exponents_are_numbers_with_and_without_a_point(tmp_path):
    cfg = load_cfg(write(tmp_path / "a.yaml", "SOLVER: {BASE_LR: 1e-3}\n"), ["SOLVER.GAMMA=1e-2"])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.GAMMA) == (1e-3, 1e-2)


def test_a_missing_file_and_a_missing_base_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        load_cfg(tmp_path / "absent.yaml")
    leaf = write(tmp_path / "leaf.yaml", "_BASE_: gone.yaml\n")
    with pytest.raises(FileNotFoundError, match="gone"):
        load_cfg(leaf)


def test_yaml_that_builds_python_objects_is_refused(tmp_path):
    file = write(tmp_path / "a.yaml", "OUTPUT_DIR: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ValueError, match=r"a\.yaml"):
        load_cfg(file)


@pytest.mark.parametrize(
    "words",
    [
        ["SOLVER.MAX_ITER", "5", "OUTPUT_DIR", "a=b"],
        ["SOLVER.MAX_ITER=5", "OUTPUT_DIR=a=b"],
        ["SOLVER.MAX_ITER", "5", "OUTPUT_DIR=a=b"],
    ],
)
def test_overrides_come_as_pairs_or_with_an_equals_sign(words):
    cfg = get_cfg()
    cfg.merge_from_list(words)
    assert (cfg.SOLVER.MAX_ITER, cfg.OUTPUT_DIR) == (5, "a=b")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["SOLVER.MAX_ITR=5"], "did you mean 'MAX_ITER'"),
        (["SOLVER.MAX_ITER.DEEPER=5"], "unknown key 'SOLVER.MAX_ITER.DEEPER'"),
        (["SOLVER.MAX_ITER"], "has no value"),
        (["SOLVER.MAX_ITER=many"], "MAX_ITER"),
        (["SOLVER=3"], "SOLVER"),
        (["SOLVER={}"], "SOLVER"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(words, message):
    with pytest.raises(ValueError, match=message):
        get_cfg().merge_from_list(words)


PLUGIN = """
    def add_config(cfg):
        cfg.MODEL.MY_HEAD = type(cfg)({"WIDTH": 8})
"""


def test_a_plug_in_file_adds_keys_before_the_yaml_merges(tmp_path):
    write(tmp_path / "my_head.py", PLUGIN)
    file = write(tmp_path / "a.yaml", "IMPORTS: [my_head.py]\nMODEL: {MY_HEAD: {WIDTH: 16}}\n")
    assert load_cfg(file).MODEL.MY_HEAD.WIDTH == 16
    assert "MY_HEAD" not in get_cfg().MODEL


def test_a_plug_in_named_in_a_base_is_found_relative_to_the_base(tmp_path):
    (tmp_path / "inner").mkdir()
    write(tmp_path / "my_head.py", PLUGIN)
    write(tmp_path / "base.yaml", "IMPORTS: [my_head.py]\nMODEL: {MY_HEAD: {WIDTH: 16}}\n")
    leaf = write(tmp_path / "inner/leaf.yaml", "_BASE_: ../base.yaml\nSEED: 1\n")
    assert load_cfg(leaf).MODEL.MY_HEAD.WIDTH == 16


def test_a_plug_in_is_imported_by_dotted_name(tmp_path, monkeypatch):
    (tmp_path / "a_lab").mkdir()
    write(tmp_path / "a_lab/__init__.py", "")
    write(tmp_path / "a_lab/head.py", PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    file = write(tmp_path / "a.yaml", "IMPORTS: [a_lab.head]\nMODEL: {MY_HEAD: {WIDTH: 4}}\n")
    assert load_cfg(file).MODEL.MY_HEAD.WIDTH == 4


def test_a_plug_in_can_be_named_on_the_command_line(tmp_path):
    path = write(tmp_path / "my_head.py", PLUGIN)
    cfg = get_cfg()
    cfg.merge_from_list([f"IMPORTS=['{path}']", "MODEL.MY_HEAD.WIDTH=2"])
    assert cfg.MODEL.MY_HEAD.WIDTH == 2


@pytest.mark.parametrize("name", ["no_such_lab.head", "no_such_head.py"])
def test_a_plug_in_that_is_not_there_is_named(tmp_path, name):
    file = write(tmp_path / "a.yaml", f"IMPORTS: [{name}]\n")
    with pytest.raises(ValueError, match=name):
        load_cfg(file)


def test_an_import_that_fails_inside_a_plug_in_is_not_mistaken_for_a_missing_plug_in(tmp_path):
    write(tmp_path / "my_head.py", "import no_such_package\n")
    file = write(tmp_path / "a.yaml", "IMPORTS: [my_head.py]\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        load_cfg(file)


class Part:
    @configurable
    def __init__(self, width: int, depth: int = 1, name: str = "part") -> None:
        self.width, self.depth, self.name = width, depth, name

    @classmethod
    def from_config(cls, cfg: CfgNode, depth: int = 1) -> dict:
        return {"width": cfg.SEED, "depth": depth * 10}


def test_a_configurable_class_takes_named_arguments_without_a_configuration():
    part = Part(width=5, depth=2)
    assert (part.width, part.depth) == (5, 2)


def test_a_configurable_class_takes_a_configuration_and_passes_on_what_it_does_not_translate():
    part = Part(get_cfg(), depth=2, name="other")
    assert (part.width, part.depth, part.name) == (get_cfg().SEED, 20, "other")
    assert Part(cfg=get_cfg()).depth == 10


def test_a_subclass_inherits_the_translation():
    class Wider(Part):
        @classmethod
        def from_config(cls, cfg: CfgNode) -> dict:
            return {"width": cfg.SEED + 1}

    assert Wider(get_cfg()).width == get_cfg().SEED + 1


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS))
)
def test_every_configuration_that_ships_has_known_keys_and_numbers(path):
    cfg = load_cfg(path)
    # yaml reads 1e-4, without a point, as text.
    assert isinstance(cfg.SOLVER.BASE_LR, float)
    assert cfg.DATASETS.TRAIN or cfg.ANNOTATION.LABELERS
