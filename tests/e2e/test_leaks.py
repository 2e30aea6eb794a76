"""No text of a document, an answer, a prompt, an exception or a header leaves by telemetry, unless it is asked for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.servers.otlp import Collector, collector

PROGRAM = """
import asyncio, logging, re, sys
from tests.fakes import ScriptedChat
from tests.servers.enrichment import EnrichmentServer
from tidegate import Pipeline, Settings
from tidegate.resilience.faults import Reply
from tidegate.telemetry import content, logs, setup

TEXT = "# Salted Title\\n\\nMs Salted Marker met Mr Arne Saltedname in Hamburg. It cost EUR 5 per salted mile."
if "redact" in sys.argv:
    content.redact_with(lambda text: re.sub("(?i)salted", "*", text))


class Broken:
    name = source = "enrichment"

    def covers(self, entity_type):
        return True

    async def look_up(self, entity):
        raise ValueError(f"a bug with {entity.text}, salted")


def refuses(prompt):
    raise RuntimeError(f"no salted answer to {prompt}")


async def run(model, server, **options):
    settings = Settings(
        checkpoints="memory:",
        recogniser="rules",
        enrichment={
            "adapter": "http",
            "url": f"{server.url}?key=salted",
            "headers": {"Authorization": "Bearer salted"},
            "types": ["PERSON", "LOC"],
            "backoff_initial": 0.0,
        },
        summary={"backoff_initial": 0.0},
    )
    async with Pipeline.open(settings, model=model, **options) as pipeline:
        async for _ in pipeline.stream(text=TEXT, thread_id="t"):
            pass


async def main():
    says = ScriptedChat(answer=lambda _: "A salted answer about Arne Saltedname. [1]")
    garbage, refusal = Reply(json=["salted"]), Reply(422, json={"error": "salted"})
    for script in ([], [garbage], [refusal] * 9, [Reply(503, json="salted", headers={"X": "salted"})] * 9, ["reset"]):
        with EnrichmentServer(script) as server:
            await run(says, server)
    with EnrichmentServer() as server:
        await run(ScriptedChat(answer=refuses), server)
        try:
            await run(says, server, enricher=Broken())
        except ValueError:
            logging.getLogger("tidegate.app").exception("it did not work")


logs.set_up("json", verbose=True)
stop = setup.configure()
asyncio.run(main())
stop()
"""


def told(*arguments: str, **variables: str) -> tuple[Collector, str]:
    """Return what a collector received of the program, and what it logged."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TIDEGATE_"))}
    with collector() as received:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            env={
                **inherited,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "OTEL_EXPORTER_OTLP_ENDPOINT": received.url,
                "OTEL_LOGS_EXPORTER": "otlp",
                "OTEL_EXPORTER_OTLP_TIMEOUT": "10",
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return received, done.stderr


def test_nothing_of_a_document_or_an_answer_leaves_by_itself() -> None:
    received, logged = told()
    assert {path for path, _ in received.bodies} == {"/v1/traces", "/v1/metrics", "/v1/logs"}
    assert {"chat scripted", "POST", "checkpoint put"} <= {span.name for span in received.spans}
    assert '"it did not work"' in logged
    for path, body in received.bodies:
        assert b"salted" not in body.lower(), path
    assert "salted" not in logged.lower()


@pytest.mark.slow
@pytest.mark.parametrize("redacted", [False, True])
def test_prompts_and_answers_are_recorded_where_that_is_asked_for_and_go_through_the_redaction(redacted: bool) -> None:
    wanted = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true"}
    received, logged = told(*["redact"] if redacted else [], **wanted)
    chat = next(span for span in received.spans if span.name == "chat scripted" and not span.error)
    answer = "A * answer about Arne *name." if redacted else "A salted answer about Arne Saltedname."
    assert answer in str(chat.attributes["gen_ai.output.messages"])
    assert str(chat.attributes["output.value"]).startswith(answer)
    assert "Hamburg" in str(chat.attributes["gen_ai.input.messages"])
    messages = [
        attributes["exception.message"]
        for span in received.spans
        for name, attributes in span.events
        if name == "exception"
    ]
    assert any("a bug with" in str(message) for message in messages)
    assert any(b"salted" in body.lower() for _, body in received.bodies) is not redacted
    assert "salted" not in logged.lower()
