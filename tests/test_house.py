"""The house itself: its links, its pins, and what no file of it may say."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ("graph", "nodes", "checkpointers")
PINS = ("constraints.txt", "constraints-dev.txt", ".ci/lowest.txt", ".ci/phoenix.txt")

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the house is checked where it is a git checkout")


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def texts() -> Iterator[tuple[str, str]]:
    """Every text file that is, or would be, committed: its path and content."""
    for name in git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        file = ROOT / name
        if name and file.is_file() and not file.is_symlink():
            content = file.read_bytes()
            if b"\0" not in content:
                yield name, content.decode(errors="replace")


def places(pattern: str) -> list[str]:
    """Where a pattern occurs, as file:line."""
    return [
        f"{name}:{content.count(chr(10), 0, found.start()) + 1}: {found[0]}"
        for name, content in texts()
        for found in re.finditer(pattern, content, re.IGNORECASE)
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_the_package_reaches_each_room_through_a_committed_link(room: str) -> None:
    link = ROOT / "src" / "tidegate" / room
    assert link.is_symlink(), f"{link} is not a link; was the repository checked out without links (core.symlinks)?"
    assert link.readlink() == Path("../..") / room
    assert git("ls-files", "--stage", str(link)).startswith("120000 ")


def test_no_file_names_a_package_registry() -> None:
    names = ("py" + r"pi\.(org|python|io)", "python" + "hosted", "npm" + r"js\.(com|org)", "files.python" + "hosted")
    assert places("|".join(names)) == []


def test_no_file_names_a_path_of_one_machine() -> None:
    assert places(r"(?<![\w.:/-])/(home|users|root|work)/[\w.-]+") == []


@pytest.mark.parametrize("file", PINS)
def test_pins_are_names_versions_and_hashes_alone(file: str) -> None:
    pin = re.compile(r"#.*|[a-z0-9][a-z0-9.-]*==[^\s;]+( ; [^:@]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert [line for line in (ROOT / file).read_text().splitlines() if not pin.fullmatch(line)] == []


def run_time() -> Iterator[Requirement]:
    yield from map(Requirement, PROJECT["project"]["dependencies"])
    for extra in PROJECT["project"]["optional-dependencies"].values():
        yield from map(Requirement, extra)


def development() -> Iterator[Requirement]:
    for name in ("build", "test", "dev"):
        yield from (Requirement(entry) for entry in PROJECT["dependency-groups"][name] if isinstance(entry, str))


def test_every_declared_dependency_is_pinned_within_its_range() -> None:
    text = "".join((ROOT / file).read_text() for file in PINS[:2])
    pins = re.findall(r"^([a-z0-9.-]+)==(\S+)", text, re.MULTILINE)
    assert [
        str(requirement)
        for requirement in (*run_time(), *development())
        if not any(
            name == canonicalize_name(requirement.name) and requirement.specifier.contains(version, prereleases=True)
            for name, version in pins
        )
    ] == [], "pyproject.toml was changed after the pins were made; run `make constraints`"


def test_every_import_is_a_declared_dependency() -> None:
    """What another dependency happens to bring may go with its next version."""
    names = {canonicalize_name(requirement.name) for requirement in run_time()}
    homes = packages_distributions()
    undeclared = {
        f"{name} in {file.relative_to(ROOT)}"
        for room in (*ROOMS, "src")
        for file in (ROOT / room).rglob("*.py")
        for name in imports(file)
        if name != "tidegate" and name not in sys.stdlib_module_names
        if not names & {canonicalize_name(home) for home in homes.get(name, [])}
    }
    assert undeclared == {"pytest in src/tidegate/testing/fixtures.py"}, "that one is imported by pytest alone"


def imports(file: Path) -> set[str]:
    """The top-level names of what a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_the_scripts_can_be_run() -> None:
    scripts = [file for file in (ROOT / ".ci").iterdir() if not file.suffix]
    assert [file.name for file in scripts if not os.access(file, os.X_OK)] == []
