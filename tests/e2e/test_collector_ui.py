"""`make trace-demo`, and what a browser shows of its traces in Arize Phoenix."""

from __future__ import annotations

import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers import chromium

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".cache" / "phoenix" / "bin" / "python"
DEMO = ROOT / "examples" / "tracing" / "demo.py"
SCREENSHOT = ROOT / ".cache" / "trace.png"

TREE = """(() => {
    const tree = document.querySelector('[data-testid=trace-tree]');
    const depth = row => row === tree ? 0 : depth(row.parentElement) + (row.tagName === 'LI');
    return [...(tree?.querySelectorAll('.span-node__heading') ?? [])].map(row => [depth(row), row.innerText.trim()]);
})()"""
CLICK = """(() => {
    const found = [...document.querySelectorAll(%r)].find(each => each.innerText.includes(%r));
    found?.click();
    return Boolean(found);
})()"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".ci" / "phoenix").exists(), reason="set up from a git checkout"),
]


@dataclass(frozen=True)
class Demo:
    process: subprocess.Popen[str]
    folder: Path
    said: str

    def link(self, command: str) -> str:
        found = re.search(rf"^  {re.escape(command)} +(\S+)$", self.said, re.MULTILINE)
        assert found is not None, self.said
        return found[1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo, as far as it prints its links."""
    subprocess.run([ROOT / ".ci" / "phoenix"], cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    folder = tmp_path_factory.mktemp("demo")
    with subprocess.Popen(
        [sys.executable, str(DEMO), str(PYTHON)],
        env=os.environ | {"TMPDIR": str(folder), "PHOENIX_HOST": "0.0.0.0", "TIDEGATE_MODEL": "nonsense"},  # noqa: S104
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        said = ""
        try:
            for line in process.stdout:
                said += line
                if line.startswith("Ctrl-C"):
                    break
            else:
                pytest.fail(said)
            yield Demo(process, folder, said)
        finally:
            process.terminate()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[chromium.Page]:
    program = chromium.program()
    if program is None:
        pytest.skip("needs Chromium: apt install chromium")
    with chromium.page(program, tmp_path / "profile") as page:
        page.size(1400, 1110)
        yield page


def test_a_browser_shows_the_run_its_nodes_the_retries_and_the_circuit(demo: Demo, page: chromium.Page) -> None:
    page.open(demo.link("tidegate run tide-mill.txt --thread-id tide-mill"))
    page.wait_until(f"{TREE}.some(([_, name]) => name.startsWith('invoke_node conclude'))")
    rows: list[Any] = [row for row in page.evaluate(TREE) if row[1] not in ("checkpoint put", "run started")]
    (top, run), *below = rows
    assert run == "invoke_workflow tidegate"
    assert below == [
        [top + 1, "invoke_node ingest"],
        [top + 1, "invoke_node extract"],
        [top + 1, "invoke_node gate_enrichment"],
        [top + 1, "invoke_node enrich"],
        *[[top + 2, "POST"]] * 6,
        [top + 1, "invoke_node gate_enrichment"],
        [top + 1, "invoke_node gate_summary"],
        [top + 1, "invoke_node summarize_extractive"],
        [top + 1, "invoke_node conclude"],
    ]

    page.wait_until(CLICK % (".span-node__heading", "invoke_node enrich"))
    page.wait_until(CLICK % ("[role=tab]", "Events"))
    told = "tidegate.circuit.state_changed"
    page.wait_until(f"document.body.innerText.includes({told!r})")
    events = re.findall(r"tidegate\.[\w.]+", page.text())
    assert events == [*["tidegate.retry.scheduled"] * 3, told]
    page.wait_until(CLICK % (".disclosure button", "tidegate.circuit.state_changed"))
    page.wait_until("/tidegate.circuit.to\\s+open/.test(document.body.innerText)")
    page.evaluate("document.querySelectorAll('.span-node__heading')[0].scrollIntoView()")
    page.screenshot(SCREENSHOT, "[role=dialog]:has([data-testid=trace-tree])")

    asked = {address for address in page.addresses if not address.startswith(("data:", "blob:", "chrome:", "about:"))}
    assert {address.split("/")[2].partition(":")[0] for address in asked} == {"127.0.0.1"}


def test_a_killed_run_is_shown_and_stands_beside_the_one_that_went_on(demo: Demo, page: chromium.Page) -> None:
    link = demo.link("tidegate run night-trains.txt --thread-id night-trains")
    page.open(link)
    page.wait_until(f"{TREE}.some(([_, name]) => name.startsWith('POST'))")
    shown = [name for _, name in page.evaluate(TREE)]
    assert "run started" in shown
    assert "invoke_node gate_enrichment" in shown
    assert "invoke_workflow tidegate" not in shown

    page.open(f"{link.partition('/redirects')[0]}/redirects/sessions/night-trains")
    page.wait_until(r"/01\s+run started[^]*02\s+invoke_workflow tidegate/.test(document.body?.innerText)")


def test_phoenix_listens_on_loopback_alone(demo: Demo) -> None:
    here = {socket.inet_ntop(socket.AF_INET, socket.inet_aton("127.0.0.1")), "::ffff:127.0.0.1"}
    assert {address for pid in children(demo.process.pid) for address in listening(pid)} <= here


def test_phoenix_knows_the_flags_that_keep_it_private(demo: Demo) -> None:
    (known,) = PYTHON.parents[1].glob("lib/python*/site-packages/phoenix/config.py")
    variables = set(re.findall(r'"(PHOENIX_\w+)"', known.read_text()))
    assert set(runpy.run_path(str(DEMO.with_name("private_phoenix.py")))["PRIVATE"]) <= variables
    (log,) = demo.folder.glob("*/phoenix.log")
    said = dict(re.findall(r"^  (\w[\w -]+?)  +\W*(\w.*)$", log.read_text(), re.MULTILINE))
    off = (
        "Telemetry",
        "Agent assistant",
        "Web access",
        "Server-side bash",
        "GitHub tools",
        "Remote export",
        "MCP server",
    )
    assert {name: said[name] for name in off} == dict.fromkeys(off, "Disabled")


def test_ctrl_c_leaves_nothing_behind(demo: Demo) -> None:
    processes = children(demo.process.pid)
    assert processes
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(30) == 130
    assert list(demo.folder.iterdir()) == []
    assert [pid for pid in processes if Path(f"/proc/{pid}").exists()] == []


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [below for child in map(int, found) for below in (child, *children(child))]


def listening(pid: int) -> Iterator[str]:
    """The addresses that a process listens on for TCP, read from /proc."""
    sockets = {file.readlink().name.removeprefix("socket:[").rstrip("]") for file in Path(f"/proc/{pid}/fd").iterdir()}
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                raw = bytes.fromhex(fields[1].partition(":")[0])
                words = [raw[place : place + 4][::-1] for place in range(0, len(raw), 4)]
                yield socket.inet_ntop(family, b"".join(words))
