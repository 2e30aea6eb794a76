"""`tidegate demo` in a process of its own: in a pipe from beginning to end, and on a terminal until Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import readme

COMMAND = [sys.executable, "-m", "tidegate", "demo"]
STORY = """
1. The service answers
bridge-works complete, revision 1: 2 of 2 names found, 2 requests
seed-library complete, revision 1: 3 of 3 names found, 3 requests
2. The service is down
tide-mill looks up University of Coimbra: 503
tide-mill looks up University of Coimbra, tried again: 503
tide-mill looks up University of Coimbra, tried again: 503
circuit opens after 3 failures in a row
tide-mill degraded, revision 1: 3 of 4 names found, 6 requests
night-trains degraded, revision 1: 0 of 5 names found, 0 requests
glass-makers degraded, revision 1: 0 of 3 names found, 0 requests
island-school degraded, revision 1: 0 of 3 names found, 0 requests
backfill watches
circuit half-open
tide-mill looks up University of Coimbra: 503
circuit open again
tide-mill degraded, revision 1: 3 of 4 names found, 1 request
3. The service is back
service answers again
circuit half-open
night-trains looks up Vienna: answered
circuit closed
night-trains complete, revision 2: 5 of 5 names found, 5 requests
glass-makers complete, revision 2: 3 of 3 names found, 3 requests
island-school complete, revision 2: 3 of 3 names found, 3 requests
tide-mill complete, revision 2: 4 of 4 names found, 1 request
while it answered 8 8 8
while it was down 12 4 0
when it was back 12 12 12
20 answers, none of them paid for twice
24 requests carried 20 idempotency keys
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Settings, a file and a proxy that would break the story if it minded them, and an empty folder for its own."""
    (tmp_path / "tidegate.toml").write_text("this is no TOML")
    (tmp_path / "temporary").mkdir()
    nowhere = "http://127.0.0.1:9"
    return {
        **{name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR")},
        "TERM": "xterm-256color",
        "TMPDIR": str(tmp_path / "temporary"),
        "TIDEGATE_MAX_DOCUMENT_BYTES": "1",
        "HTTP_PROXY": nowhere,
        "http_proxy": nowhere,
        "all_proxy": "socks5://127.0.0.1:9",
    }


@pytest.mark.slow
def test_the_demo_tells_an_outage_from_beginning_to_end_as_the_readme_shows_it(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    done = subprocess.run(COMMAND, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60.0, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    printed = re.sub(r"(?m)^ *\d+\.\d s", "", done.stdout)
    told = [" ".join(line.split()) for line in printed.splitlines()]
    place = 0
    for line in STORY.strip().splitlines():
        found = next((number for number, each in enumerate(told[place:]) if line in each), None)
        assert found is not None, f"{line!r} is not in what follows:\n{done.stdout}"
        place += found + 1
    assert "\x1b" not in done.stdout
    assert list((tmp_path / "temporary").iterdir()) == []
    assert {each.name for each in tmp_path.iterdir()} == {"temporary", "tidegate.toml"}
    text = readme.README.read_text()
    shown = readme.written_into(text, readme.demo(done.stdout))
    assert readme.without_seconds(shown) == readme.without_seconds(text), "`python -m tests.tools.readme` writes it"


@pytest.mark.slow
def test_on_a_terminal_a_table_is_drawn_anew_until_it_is_interrupted(tmp_path: Path, environ: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(COMMAND, cwd=tmp_path, env=environ, stdin=theirs, stdout=theirs, stderr=theirs) as demo:
        os.close(theirs)
        seen = b""
        while b"circuit: \x1b[31mopen\x1b[0m, probe in 3 s" not in seen:
            seen += os.read(ours, 65536)
        assert len(list((tmp_path / "temporary").iterdir())) == 1
        demo.send_signal(signal.SIGINT)
        while part := _read(ours):
            seen += part
        assert demo.wait(20) == 130
    os.close(ours)
    assert "│ tide-mill" in seen.decode()
    assert seen.count(b"names found") > 10  # its head, so often drawn
    assert seen.endswith(b"tidegate: demo interrupted; nothing is left behind\r\n")
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")  # the cursor is shown again
    assert list((tmp_path / "temporary").iterdir()) == []


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux's way to say that nobody has it open any more
        return b""
