"""The environment is not an interface: two files read it, and nothing else does."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("semsam", "tools", "datasets", "projects", "benchmarks")
READERS = {"semsam/data/catalog.py", "semsam/utils/comm.py"}
NAMES = {"environ", "environb", "getenv", "getenvb"}


def lines_that_read_the_environment(source: str) -> list[int]:
    lines = []
    for node in ast.walk(ast.parse(source)):
        attribute = isinstance(node, ast.Attribute) and node.attr in NAMES
        imported = isinstance(node, ast.ImportFrom) and node.module == "os"
        if attribute or (imported and NAMES & {alias.name for alias in node.names}):
            lines.append(node.lineno)
    return lines


def test_no_file_but_the_two_readers_reads_the_environment():
    found = {}
    for file in sorted(f for folder in FOLDERS for f in (ROOT / folder).rglob("*.py")):
        name = file.relative_to(ROOT).as_posix()
        if name not in READERS and (lines := lines_that_read_the_environment(file.read_text())):
            found[name] = lines
    assert not found


def test_the_catalog_reads_the_data_folder_and_nothing_else():
    tree = ast.parse((ROOT / "semsam/data/catalog.py").read_text())
    strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
    words = {s for s in strings if isinstance(s, str) and s.isidentifier() and s.isupper()}
    assert words == {"SEMSAM_DATASETS"}


@pytest.mark.parametrize(
    "source", ["import os\nos.environ['A']", "import os\nos.getenv('A')", "from os import environ"]
)
def test_each_way_to_read_the_environment_is_found(source):
    assert lines_that_read_the_environment(source)
