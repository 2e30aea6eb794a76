"""Log records: where they belong to, as lines for people and machines, over OTLP, and what they never hold."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.servers.enrichment import EnrichmentServer
from tests.servers.otlp import collector
from tests.spans import recording
from tests.worlds import NamesByCapital
from tidegate import Pipeline, Settings
from tidegate.telemetry import logs, spans
from tidegate.testing import ManualClock

SECRET = "Iwan Roberts owes 3,000"
_log = logging.getLogger("tidegate.test")


def written(shape: logs.Format, *, verbose: bool = True) -> io.StringIO:
    stream = io.StringIO()
    logs.set_up(shape, verbose=verbose, stream=stream)
    return stream


def fail() -> None:
    raise ValueError(SECRET)


def test_a_line_of_json_says_which_trace_thread_and_node_it_is_of(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = written("json")
    with recording(monkeypatch), spans.run("t-1", resumed=False), spans.node("enrich"):
        _log.info("looked up %d", 3)
    _log.warning("outside")
    inside, outside = map(json.loads, stream.getvalue().splitlines())
    assert set(inside) == {"time", "level", "logger", "message", "thread_id", "node", "trace_id", "span_id"}
    assert (inside["level"], inside["message"], inside["logger"]) == ("INFO", "looked up 3", "tidegate.test")
    assert (inside["thread_id"], inside["node"]) == ("t-1", "enrich")
    assert (len(inside["trace_id"]), len(inside["span_id"])) == (32, 16)
    assert set(outside) == {"time", "level", "logger", "message"}


def test_where_nobody_traces_a_line_still_names_thread_and_node() -> None:
    stream = written("json")
    with spans.run("t-1", resumed=False), spans.node("enrich"):
        _log.info("here")
    line = json.loads(stream.getvalue())
    assert (line["thread_id"], line["node"]) == ("t-1", "enrich")
    assert "trace_id" not in line


def test_a_line_to_read_names_thread_and_node() -> None:
    stream = written("text")
    with spans.run("t-1", resumed=False), spans.node("enrich"):
        _log.warning("slow")
    _log.info("outside")
    assert stream.getvalue() == "WARNING tidegate.test: slow [t-1, enrich]\nINFO tidegate.test: outside\n"


def test_what_is_not_wanted_is_not_written() -> None:
    stream = written("text", verbose=False)
    _log.info("quiet")
    _log.warning("loud")
    assert stream.getvalue() == "WARNING tidegate.test: loud\n"


@pytest.mark.parametrize("shape", ["text", "json"])
def test_of_an_exception_the_type_and_the_place_are_written_and_no_message(shape: logs.Format) -> None:
    stream = written(shape)
    try:
        fail()
    except ValueError:
        _log.exception("it failed")
    text = stream.getvalue()
    assert SECRET not in text
    assert "ValueError" in text
    assert "in fail" in text


async def test_what_happens_in_a_run_is_logged_with_its_thread() -> None:
    stream = written("json")
    clock = ManualClock(auto=True)
    with EnrichmentServer([503] * 3, clock=clock) as server:
        section: Any = {"adapter": "http", "url": server.url, "types": ["LOC"], "concurrency": 1}
        settings = Settings(checkpoints="memory:", enrichment=section)
        async with Pipeline.open(settings, recogniser=NamesByCapital(), clock=clock) as pipeline:
            await pipeline.run(text="we met Bob.", thread_id="t-1")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    told = [(line["node"], line["message"].rsplit(" in ", 1)[0]) for line in lines if line["logger"] == "tidegate"]
    assert [line["message"] for line in lines if line["level"] == "WARNING"] == [
        "circuit enrichment: closed to open after transient"
    ]
    assert told == [
        ("gate_enrichment", "goes to enrich: circuit closed"),
        ("enrich", "enrichment: attempt 1 failed (Transient), the next one starts"),
        ("enrich", "enrichment: attempt 2 failed (Transient), the next one starts"),
        ("enrich", "circuit enrichment: closed to open after transient"),
        ("gate_enrichment", "goes to gate_summary: circuit open"),
        ("gate_summary", "goes to summarize_extractive: no model configured"),
    ]
    assert {line["thread_id"] for line in lines if line["logger"] == "tidegate"} == {"t-1"}


async def test_an_outage_is_one_warning_however_often_it_is_probed() -> None:
    stream = written("text")
    clock = ManualClock(auto=True)
    with EnrichmentServer([503] * 5, clock=clock) as server:
        section: Any = {"adapter": "http", "url": server.url, "types": ["LOC"], "concurrency": 1}
        settings = Settings(checkpoints="memory:", enrichment=section)
        async with Pipeline.open(settings, recogniser=NamesByCapital(), clock=clock) as pipeline:
            await pipeline.run(text="we met Bob.", thread_id="t-1")
            for _ in range(3):
                clock.advance(31.0)
                await pipeline.resume("t-1")
            await pipeline.force_circuit("enrichment", "open")
            await pipeline.force_circuit("enrichment", None)
    told = [line.split(" [")[0] for line in stream.getvalue().splitlines() if " circuit enrichment: " in line]
    assert told == [
        "WARNING tidegate: circuit enrichment: closed to open after transient",
        "INFO tidegate: circuit enrichment: open to half_open",
        "INFO tidegate: circuit enrichment: half_open to open after transient",
        "INFO tidegate: circuit enrichment: open to half_open",
        "INFO tidegate: circuit enrichment: half_open to open after transient",
        "INFO tidegate: circuit enrichment: open to half_open",
        "INFO tidegate: circuit enrichment: half_open to closed",
        "WARNING tidegate: circuit enrichment: closed to open by force",
        "INFO tidegate: circuit enrichment: open to closed",
    ]


PROGRAM = """
import logging, sys
from tidegate.telemetry import logs, setup, spans

logs.set_up("text", verbose=False)
stop = setup.configure()
with spans.run("t-1", resumed=False), spans.node("enrich"):
    logging.getLogger("tidegate.graph").info("goes on")
    logging.getLogger("tidegate.graph").warning("is slow")
    logging.getLogger("httpx").warning("of somebody else")
    try:
        raise ValueError("Iwan Roberts owes 3,000")
    except ValueError:
        logging.getLogger("tidegate").exception("failed")
    if len(sys.argv) > 1:
        logging.getLogger("tidegate").warning("%d things", "Iwan Roberts owes 3,000")
        logging.getLogger("tidegate").warning("caf\\udce9.txt")
stop()
"""


def program(*arguments: str, **variables: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stderr


def test_records_go_to_a_collector_when_they_are_asked_for() -> None:
    with collector() as received:
        errors = program(OTEL_EXPORTER_OTLP_ENDPOINT=received.url, OTEL_LOGS_EXPORTER="otlp")
        assert [(record.severity, record.body) for record in received.records] == [
            ("INFO", "goes on"),
            ("WARNING", "is slow"),
            ("ERROR", "failed"),
        ]
        first, _, last = received.records
        node = next(span for span in received.spans if span.name == "invoke_node enrich")
        assert (first.trace_id, first.span_id) == (node.trace_id, node.span_id)
        assert first.attributes == {"logger.name": "tidegate.graph", "thread_id": "t-1", "node": "enrich"}
        assert last.attributes["exception.type"] == "ValueError"
        assert SECRET not in repr(received.records)
    assert "is slow" in errors
    assert "goes on" not in errors


def test_a_record_that_cannot_be_made_or_sent_as_it_is_takes_none_other_with_it() -> None:
    with collector() as received:
        errors = program("odd", OTEL_EXPORTER_OTLP_ENDPOINT=received.url, OTEL_LOGS_EXPORTER="otlp")
        assert [record.body for record in received.records] == [
            "goes on",
            "is slow",
            "failed",
            "%d things [its arguments do not fit]",
            "caf?.txt",
        ]
    assert SECRET not in errors


def test_without_being_asked_for_no_record_leaves() -> None:
    with collector() as received:
        program(OTEL_EXPORTER_OTLP_ENDPOINT=received.url)
        assert received.spans
        assert not received.records


def test_a_record_cannot_pretend_to_be_two_or_steer_a_terminal() -> None:
    stream = written("text")
    _log.warning("no such file: %s", "a\nERROR tidegate: forged\x1b[31m\u2028.txt")
    assert stream.getvalue() == (
        "WARNING tidegate.test: no such file: a\\nERROR tidegate: forged\\x1b[31m\\u2028.txt\n"
    )


@pytest.mark.parametrize("shape", ["text", "json"])
def test_a_record_whose_arguments_do_not_fit_is_written_without_them(
    shape: logs.Format, capsys: pytest.CaptureFixture[str]
) -> None:
    class Mute:
        def __str__(self) -> str:
            raise ValueError(SECRET)

    stream = written(shape)
    _log.warning("%d things", SECRET)
    _log.warning("%s things", Mute())
    text = stream.getvalue() + capsys.readouterr().err
    assert text.count("things") == 2
    assert SECRET not in text
    assert "Traceback" not in text


@pytest.mark.parametrize("shape", ["text", "json"])
async def test_what_asyncio_tells_of_a_task_does_not_quote_its_exception(shape: logs.Format) -> None:
    stream = written(shape)
    task = asyncio.create_task(asyncio.to_thread(fail))
    await asyncio.wait([task])
    del task
    gc.collect()
    text = stream.getvalue()
    assert "Task exception was never retrieved" in text
    assert SECRET not in text


def test_addresses_that_a_model_s_client_asks_are_not_logged() -> None:
    stream = written("text")
    logging.getLogger("httpx").info('HTTP Request: POST %s "HTTP/1.1 200 OK"', "http://user:key@host/v1?api_key=key")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("is_terminal", "clears"), [(True, "\r\x1b[K"), (False, "")])
def test_on_a_terminal_a_record_takes_the_place_of_the_line_that_shows_progress(is_terminal: bool, clears: str) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal  # type: ignore[method-assign]
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        logs.set_up("text", verbose=False, stream=stream)
        logging.getLogger("tidegate").warning("paused")
    finally:
        logging.basicConfig(level=before[1], handlers=before[0], force=True)
    assert stream.getvalue() == f"{clears}WARNING tidegate: paused\n"


def test_a_service_tells_of_threads_but_not_of_each_step() -> None:
    stream = io.StringIO()
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        logs.set_up("text", verbose=False, told=["tidegate.engine"], stream=stream)
        logging.getLogger("tidegate.engine.in_process").info("thread t is complete")
        logging.getLogger("tidegate").info("goes to enrich")
        logging.getLogger("tidegate").warning("it rains")
    finally:
        logging.basicConfig(level=before[1], handlers=before[0], force=True)
    assert [line.partition(": ")[2] for line in stream.getvalue().splitlines()] == ["thread t is complete", "it rains"]
