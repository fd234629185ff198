"""Rules of the house that no linter knows: sizes of files, names, imports."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from halffull.cli import COMMANDS

MOST_LINES = 400
MOST_LINES_OF_A_POLICY = 150
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base_utils"}


def python_files(root: Path) -> list[Path]:
    folders = [root / name for name in ("operator", "tests", "bench", "charts")]
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_operator_is_no_package(root: Path) -> None:
    assert not (root / "operator" / "__init__.py").exists(), "it would shadow the standard library's operator"
    answer = subprocess.run(
        [sys.executable, "-c", "import operator; print(operator.__file__)"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert not Path(answer.strip()).is_relative_to(root / "operator")


@pytest.mark.parametrize("package", ["halffull", "halffull.engines"])
def test_packages_that_engines_load_import_nothing(package: str) -> None:
    """A vLLM loads its scheduler class from them, beside its own dependencies and without ours."""
    script = f"import sys; before = set(sys.modules); import {package}; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) <= {"halffull", package}


def test_no_file_is_long(root: Path) -> None:
    long = {str(path.relative_to(root)): lines(path) for path in python_files(root) if lines(path) > MOST_LINES}
    assert long == {}


def test_a_policy_fits_on_a_screen_or_two(root: Path) -> None:
    package = root / "operator" / "halffull"
    files = [*package.glob("policies/*.py"), *package.glob("orderings/*.py")]
    assert files
    assert {path.name: lines(path) for path in files if lines(path) > MOST_LINES_OF_A_POLICY} == {}


def test_names_say_what_a_module_is_for(root: Path) -> None:
    assert [path for path in python_files(root) if path.stem in VAGUE_NAMES] == []


def test_every_module_says_what_it_is_for(root: Path) -> None:
    silent = [
        path
        for path in python_files(root)
        if path.name != "__init__.py" and not path.read_text().lstrip().startswith(('"""', 'r"""', "#!"))
    ]
    assert silent == []


def test_constraints_pin_and_name_no_registry(root: Path) -> None:
    pins = (root / "constraints.txt").read_text().splitlines()
    assert [pin for pin in pins if pin.count("==") != 1 or "/" in pin or " " in pin] == []
    assert pins == sorted(pins, key=str.lower)


def test_the_architecture_names_files_that_exist(root: Path) -> None:
    """operator/README.md says where each step happens; a file that moves takes its mention along."""
    text = (root / "operator" / "README.md").read_text()
    named = {name for name in re.findall(r"`([a-z_0-9/.]+)`", text) if "/" in name}
    places = [root, root / "operator" / "halffull"]
    assert [name for name in sorted(named) if not any((place / name).exists() for place in places)] == []


def test_the_readme_names_every_command_and_links_to_files_that_exist(root: Path) -> None:
    text = (root / "README.md").read_text()
    assert [name for name in COMMANDS if f"`halffull {name}" not in text] == []
    assert [link for link in re.findall(r"\]\(([^)#:]+)\)", text) if not (root / link).exists()] == []
