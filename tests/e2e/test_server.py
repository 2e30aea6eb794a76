"""A LangGraph server runs the graph that langgraph.json names."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
TEXT = "They sail from Rotterdam in the Netherlands to Hamburg in Germany every week."


@pytest.fixture
def server(tmp_path: Path) -> Iterator[httpx.Client]:
    pytest.importorskip("langgraph_api", reason="needs langgraph-cli[inmem]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "langgraph.json").write_text(json.dumps(json.loads((ROOT / "langgraph.json").read_text())))
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "host"\nversion = "0"\n')
    environ = os.environ | {
        "TIDEGATE_CHECKPOINTS": f"sqlite:///{tmp_path}/t.db",
        "LANGSMITH_TRACING": "false",
        "LANGGRAPH_CLI_NO_ANALYTICS": "1",
    }
    command = [sys.executable, "-m", "langgraph_cli", "dev", "--no-browser", "--no-reload", "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=log, stderr=subprocess.STDOUT)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0, trust_env=False) as client:
                for _ in range(600):
                    try:
                        client.get("/ok").raise_for_status()
                        break
                    except httpx.HTTPError:
                        assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
                        time.sleep(0.1)
                yield client
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.slow
def test_a_langgraph_server_runs_the_graph_and_blocks_nothing(server: httpx.Client, tmp_path: Path) -> None:
    assistants = server.post("/assistants/search", json={}).json()
    drawn = server.get(f"/assistants/{assistants[0]['assistant_id']}/graph")
    assert {node["id"] for node in drawn.raise_for_status().json()["nodes"]} >= {"ingest", "enrich", "conclude"}
    thread = server.post("/threads", json={}).json()["thread_id"]
    body = {"assistant_id": "tidegate", "input": {"text": TEXT, "source": "note.txt"}}
    state: dict[str, Any] = server.post(f"/threads/{thread}/runs/wait", json=body).json()
    assert state.get("outcome", {}).get("status") == "complete", (state, (tmp_path / "log").read_text()[-3000:])
    found = {entity["text"] for entity in state["entities"].values()}
    assert found >= {"Rotterdam", "Hamburg"}
    stored = server.get(f"/threads/{thread}/state").json()
    assert stored["values"]["revision"] == 1
    again: dict[str, Any] = server.post(f"/threads/{thread}/runs/wait", json=body).json()
    assert again["revision"] == 1
    assert "Blocking call" not in (tmp_path / "log").read_text()
