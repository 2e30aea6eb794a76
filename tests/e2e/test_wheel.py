"""What a user gets: the wheel, built from the source distribution, installed in an environment of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "samples" / "harbour-report.md"

pytestmark = pytest.mark.slow


def execute(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command outside of the checkout's reach and return what it printed; show all of it where it failed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TIDEGATE_"))}
    done = subprocess.run(
        command, cwd=cwd, env={**clean, **(env or {})}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Built:
    sdist: Path
    wheel: Path

    def files(self) -> set[str]:
        return set(zipfile.ZipFile(self.wheel).namelist())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("dist")
    execute(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return Built(*folder.glob("*.tar.gz"), *folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel, what the wheel asks for, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv = folder / "venv"
    execute(sys.executable, "-m", "venv", venv, cwd=folder)
    pins = folder / "pins.txt"
    versions = re.findall(r"^[a-z0-9.-]+==[^\\\n]+", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    pins.write_text("\n".join(versions))
    execute(ROOT / ".ci" / "install", venv, "--constraint", pins, built.wheel, cwd=folder)
    execute(venv / "bin" / "python", "-m", "pip", "check", cwd=folder)
    return venv / "bin"


def test_the_wheel_holds_the_package_and_nothing_beside_it(built: Built) -> None:
    tops = {name.partition("/")[0] for name in built.files()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tidegate"}


def test_the_wheel_holds_every_file_of_the_package(built: Built) -> None:
    rooms = [(ROOT / room, f"tidegate/{room}") for room in ("graph", "nodes", "checkpointers")]
    expected = {
        f"{target}/{file.relative_to(folder).as_posix()}"
        for folder, target in [*rooms, (ROOT / "src" / "tidegate", "tidegate")]
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert expected <= built.files()
    assert "tidegate/py.typed" in expected
    assert "tidegate/graph/pipeline.py" in expected


def test_the_wheel_carries_its_licences(built: Built) -> None:
    licences = {name.partition("licenses/")[2] for name in built.files() if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE", "src/tidegate/services/data/NOTICE"}


def test_the_source_distribution_holds_the_tests(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"tests/e2e/test_wheel.py", "graph/pipeline.py", "nodes/enrich.py", "CHANGELOG.md", "README.md"} <= names


def test_the_command_runs_outside_of_the_checkout(installed: Path, tmp_path: Path) -> None:
    assert "run" in execute(installed / "tidegate", "--help", cwd=tmp_path)
    told = execute(installed / "tidegate", "run", SAMPLE, cwd=tmp_path)
    title = SAMPLE.read_text().splitlines()[0].lstrip("# ")
    assert title in told


def test_the_demo_runs_without_the_checkout_and_without_extras(installed: Path, tmp_path: Path) -> None:
    assert "20 answers, none of them paid for twice" in execute(installed / "tidegate", "demo", cwd=tmp_path)


FLAT_PROJECT = {
    "nodes.py": """
def headline(state):
    return {"headline": state["result"]["title"].upper()}
""",
    "graph.py": """
import sys
from typing import TypedDict

from langgraph.graph import END, START, StateGraph

from nodes import headline
from tidegate import Pipeline


class State(TypedDict, total=False):
    document: str
    result: dict
    headline: str


def build(pipeline):
    graph = StateGraph(State)
    graph.add_node("digest", pipeline.as_node())
    graph.add_node("headline", headline)
    graph.add_edge(START, "digest")
    graph.add_edge("digest", "headline")
    graph.add_edge("headline", END)
    return graph.compile()


if __name__ == "__main__":
    with Pipeline.open_sync() as pipeline:
        print(build(pipeline).invoke({"document": sys.argv[1]})["headline"])
""",
}
"""The layout that LangGraph's own templates have: it would break if tidegate installed a module `graph` or `nodes`."""


def test_a_project_with_its_own_graph_and_nodes_uses_the_package(installed: Path, tmp_path: Path) -> None:
    for name, text in FLAT_PROJECT.items():
        (tmp_path / name).write_text(text)
    told = execute(installed / "python", "graph.py", SAMPLE, cwd=tmp_path)
    title = SAMPLE.read_text().splitlines()[0].lstrip("# ")
    assert told.strip() == title.upper()
