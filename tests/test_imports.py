"""Every module imports, the package imports fast, and setup.py lists what is imported."""

import ast
import importlib
import json
import re
import runpy
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "semsam").rglob("*.py")
)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name):
    importlib.import_module(name)


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in (ROOT / "semsam").rglob("*.py")}
    assert [str(f) for f in sorted(folders) if not (f / "__init__.py").exists()] == []


def test_importing_semsam_takes_under_two_seconds_and_pulls_in_no_heavy_package():
    code = (
        "import sys, time, json; start = time.perf_counter(); import semsam; "
        "print(json.dumps([time.perf_counter() - start, list(sys.modules)]))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    seconds, modules = json.loads(output.stdout)
    assert seconds < 2
    assert {"transformers", "timm", "spacy", "gradio", "matplotlib"}.isdisjoint(modules)


#: Distributions of packages that need not be installed.
OPTIONAL = {"open_clip": ["open_clip_torch"]}


def imported_packages(folder: Path) -> set[str]:
    """Top-level names that the files under a folder import, but those of Python and of here."""
    files = list(folder.rglob("*.py"))
    here = {"semsam", "tests", "tools", "datasets", "benchmarks"} | {file.stem for file in files}
    names = set()
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text()))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - here


@pytest.mark.parametrize("folder", ["semsam", "tools", "datasets", "projects", "benchmarks"])
def test_every_package_that_the_code_imports_is_declared(folder, monkeypatch):
    arguments = {}
    monkeypatch.setattr("setuptools.setup", lambda **given: arguments.update(given))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    groups = [arguments["install_requires"], *arguments["extras_require"].values()]
    declared = {re.split(r"[<>=[]", line)[0] for group in groups for line in group}
    distributions = metadata.packages_distributions()
    # detectron2 cannot be declared: it is built from source, by those who want the bridge.
    imported = imported_packages(ROOT / folder) - {"detectron2"}
    undeclared = {
        name
        for name in imported
        if not {d.lower() for d in distributions.get(name, OPTIONAL.get(name, [name]))} & declared
    }
    assert not undeclared
