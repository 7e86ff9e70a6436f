"""A package of semsam imports packages to its left only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "semsam"
LAYERS = [
    {"utils"},
    {"config"},
    {"structures", "layers"},
    {"data", "modeling"},
    {"checkpoint", "solver", "evaluation"},
    {"engine", "model_zoo"},
    {"inference"},
    {"annotation"},
    {"bridge", "testing"},
]
RANK = {package: rank for rank, layer in enumerate(LAYERS) for package in layer}


def imported_modules(source: str, package: list[str]) -> set[str]:
    """Dotted names that a module imports; ``package`` is the dotted package it lies in."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            # `from semsam import data` imports semsam.data.
            names |= {".".join([*base, alias.name]) for alias in node.names}
    return names


def wrong_imports(source: str, package: list[str], own: str) -> list[str]:
    """Imports of semsam from the same layer's other packages or from the right."""
    wrong = []
    for name in imported_modules(source, package):
        parts = name.split(".")
        if parts[0] != "semsam":
            continue
        other = parts[1] if len(parts) > 1 else ""
        if other != own and RANK.get(other, len(LAYERS)) >= RANK[own]:
            wrong.append(name)
    return sorted(wrong)


def top_level_packages() -> list[str]:
    return sorted(
        path.stem
        for path in ROOT.iterdir()
        if path.stem not in ("__init__", "__pycache__", "configs")
        and (path.suffix == ".py" or any(path.glob("**/*.py")))
    )


@pytest.mark.parametrize("own", top_level_packages())
def test_a_package_imports_only_to_its_left(own):
    assert own in RANK, f"semsam/{own} has no layer; give it one in LAYERS"
    single = ROOT / f"{own}.py"
    wrong = {}
    for file in [single] if single.exists() else sorted((ROOT / own).rglob("*.py")):
        package = ["semsam", *file.relative_to(ROOT).parent.parts]
        if found := wrong_imports(file.read_text(), package, own):
            wrong[str(file.relative_to(ROOT))] = found
    assert not wrong


@pytest.mark.parametrize(
    ("source", "package", "own"),
    [
        ("from semsam.modeling import build_model", "semsam.data", "data"),
        ("import semsam.engine.trainer", "semsam.config", "config"),
        ("from ..modeling import build", "semsam.data", "data"),
        ("from ...layers import blocks", "semsam.structures.sub", "structures"),
        ("def f():\n    from semsam import model_zoo", "semsam.engine", "engine"),
        ("from semsam import build_model", "semsam.utils", "utils"),
    ],
)
def test_an_import_to_the_right_is_found_however_it_is_written(source, package, own):
    assert len(wrong_imports(source, package.split("."), own)) == 1


def test_imports_to_the_left_and_of_the_own_package_are_accepted():
    source = "from ..utils import comm\nfrom . import build\nfrom semsam.config import CfgNode\n"
    assert wrong_imports(source, ["semsam", "data"], "data") == []
