"""Write what the program prints into README.md: `python -m tests.tools.readme`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import httpx
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from standardwebhooks.webhooks import Webhook

from tests.e2e.unattended import Service
from tests.servers.enrichment import EnrichmentServer
from tidegate.settings import Settings, in_force
from tidegate.settings.service import Sink, Trigger

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
SAMPLE = "tests/samples/harbour-report.md"
OTHER_SAMPLE = "tests/samples/ferry-notice.txt"


def tidegate(*arguments: str, folder: Path) -> str:
    """Run the command as README's reader would, from the checkout; return what a terminal shows, uncoloured."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEGATE_", "OTEL_"))}
    environ["TIDEGATE_CHECKPOINTS"] = f"sqlite:///{folder}/tidegate.db"
    config = folder / "tidegate.toml"
    link = folder / "tests"
    if not link.exists():
        link.symlink_to(ROOT / "tests")
    done = subprocess.run(
        [sys.executable, "-m", "tidegate", *arguments],
        cwd=folder if config.exists() else ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return done.stdout.rstrip()


def console(command: str, printed: str) -> str:
    return f"```console\n$ {command}\n{printed}\n```"


def run(folder: Path) -> dict[str, str]:
    return {"run": console(f"make run DOC={SAMPLE}", tidegate("run", SAMPLE, folder=folder))}


def graph(folder: Path) -> dict[str, str]:
    return {"graph": f"```mermaid\n{tidegate('graph', folder=folder)}\n```"}


def settings() -> dict[str, str]:
    rows = [
        f"| `{row.name}` | {f'`{row.value}`' if row.value else ''} | {row.description} |"
        for row in in_force(Settings())
    ]
    table = ["| setting | default | what it does |", "| --- | --- | --- |", *rows]
    return {"settings": "\n".join(table), "triggers": _table(Trigger), "sinks": _table(Sink)}


def _table(kinds: Any) -> str:
    """Return a table of the settings of all kinds of triggers, or of sinks; those that all of them share come first."""
    models: list[type[BaseModel]] = list(get_args(get_args(kinds)[0]))
    shared = [name for name in models[0].model_fields if all(name in model.model_fields for model in models)]
    rows = ["| setting | default | what it does |", "| --- | --- | --- |"]
    rows += [_row(name, models[0].model_fields[name]) for name in shared if name != "kind"]
    for model in models:
        rows += [_row(name, field) for name, field in model.model_fields.items() if name not in shared]
    return "\n".join(rows)


def _row(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else f"`{field.default}`" if field.default not in ("", (), None) else ""
    return f"| `{name}` | {default} | {field.description} |"


def outage(folder: Path, *, reset_timeout: float) -> dict[str, str]:
    """Take the sample through an outage of a real API on loopback."""
    with EnrichmentServer() as server:
        (folder / "tidegate.toml").write_text(
            f'[enrichment]\nadapter = "http"\nurl = "{server.url}"\ntypes = ["LOC"]\nconcurrency = 1\n'
            f"reset_timeout = {reset_timeout}\n"
        )
        server.down(503)
        first = tidegate("run", SAMPLE, folder=folder)
        if len(server.requests) != 3:
            raise AssertionError(f"{len(server.requests)} requests, not 3")
        thread = re.search(r"^thread +(\S+)", first, re.MULTILINE)
        assert thread is not None
        tidegate("run", OTHER_SAMPLE, folder=folder)
        server.up()
        time.sleep(reset_timeout)
        healed = tidegate("resume", thread[1], folder=folder)
        backfilled = tidegate("backfill", folder=folder)
    command = f"tidegate resume {thread[1]}"
    return {
        "outage": console(f"tidegate run {SAMPLE}", shortened(first)),
        "healed": console(command, shortened(healed)),
        "backfilled": console("tidegate backfill", backfilled),
    }


def serve(folder: Path) -> dict[str, str]:
    """Serve what README configures, and bring it two documents."""
    [config] = re.findall(r"<!-- config: serve -->\n```toml\n(.*?)```", README.read_text(), re.DOTALL)
    [secret] = re.findall(r"whsec_[^\"]*", config)
    service = Service(folder, None)
    (folder / "tidegate.toml").write_text(f"{config}\n[serve]\nport = {service.port}\n")
    (folder / "inbox").mkdir()
    with service:
        service.wait_until_ready()
        shutil.copy(ROOT / SAMPLE, folder / "inbox")
        _until(lambda: (folder / "summaries" / "harbour-report.md.summary.md").exists())
        body, at = json.dumps({"text": "The ferry to Bergen is late.", "name": "notice"}), datetime.now(UTC)
        headers = {
            "webhook-id": "msg_1",
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(secret).sign("msg_1", at, body),
            "content-type": "application/json",
        }
        httpx.post(f"{service.url}/hooks/webhook", content=body, headers=headers).raise_for_status()
        _until(lambda: (folder / "summaries" / "notice.summary.json").exists())
        time.sleep(1.0)  # the log tells of it afterwards
        service.stop()
    told = service.log().replace(f":{service.port}", ":8321").rstrip()
    files = "\n".join(sorted(file.name for file in (folder / "summaries").iterdir()))
    return {"serve": console("mkdir inbox\n$ tidegate serve", f"{told}\n$ ls summaries\n{files}")}


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60.0
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError("it never happened")
        time.sleep(0.05)


def demo(printed: str) -> dict[str, str]:
    """Leave out how documents go through a service that answers."""
    introduction, _, outage = printed.partition("\n\n1. ")
    return {"demo": console("tidegate demo", f"{introduction}\n\n…\n\n{outage.partition(chr(10) * 2)[2].rstrip()}")}


def without_seconds(text: str) -> str:
    """Return the text less its times, which differ from run to run."""
    return re.sub(r" *\d+(?:\.\d)? s\b", " N s", text)


def shortened(printed: str) -> str:
    """Leave out the summary and the entities, which the first example shows."""
    return re.sub(r"\n\nSummary .*?\n\n(?=Missing|thread )", "\n\n…\n\n", printed, flags=re.DOTALL)


def written_into(text: str, blocks: dict[str, str]) -> str:
    """Replace what follows each marker, up to the next blank line outside of the block."""
    for name, block in blocks.items():
        fenced = block.startswith("```")
        old = r"```\w*\n.*?\n?```" if fenced else r"(?:\|[^\n]*\n)*"
        pattern = re.compile(rf"(<!-- (?:output: )?{name} -->\n)({old})", re.DOTALL)
        found = pattern.search(text)
        if found is None:
            raise ValueError(f"README.md has no marker {name}")
        text = f"{text[: found.start(2)]}{block}{'' if fenced else chr(10)}{text[found.end() :]}"
    return text


def main() -> None:
    """Rewrite README.md."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        blocks = run(Path(one)) | graph(Path(one)) | settings() | outage(Path(other), reset_timeout=30.0)
        blocks |= demo(tidegate("demo", folder=Path(one)))
        (service := Path(one) / "service").mkdir()
        blocks |= serve(service)
    README.write_text(written_into(README.read_text(), blocks))


if __name__ == "__main__":
    main()
