"""Opening savers by URL, and what all of them share."""

from __future__ import annotations

import asyncio
import operator
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Send, interrupt
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr

from tests.checkpoints import at, checkpoint
from tidegate import Pipeline, Settings
from tidegate.checkpointers import Location, locate, open_checkpointer, open_checkpointer_sync
from tidegate.errors import MissingExtra, SettingsError
from tidegate.telemetry import names, spans

SAVERS = ["memory:", "sqlite:///{}/tidegate.db", "file:///{}/folder", "postgresql"]


@pytest.fixture(params=SAVERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return str(request.param).format(tmp_path)


# URLs


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("memory:", Location("memory", None, ":memory:", ":memory:")),
        (
            "sqlite:///tidegate.db",
            Location("sqlite", Path("tidegate.db"), "tidegate.db", "tidegate-live.db"),
        ),
        (
            "sqlite:////srv/x/threads.sqlite",
            Location("sqlite", Path("/srv/x/threads.sqlite"), "/srv/x/threads.sqlite", "/srv/x/threads-live.sqlite"),
        ),
        ("file:///threads", Location("file", Path("threads"), "threads/store.db", "threads/live.db")),
        (
            "file:////srv/threads/",
            Location("file", Path("/srv/threads"), "/srv/threads/store.db", "/srv/threads/live.db"),
        ),
    ],
)
def test_a_url_names_the_checkpoints_and_the_databases_beside_them(url: str, location: Location) -> None:
    assert locate(url) == location


def test_a_postgresql_url_names_the_server_for_checkpoints_and_store() -> None:
    location = locate("postgresql://me:secret@host/db")
    assert (location.kind, location.checkpoints) == ("postgres", None)
    assert location.server is not None
    assert location.server.shown == "postgresql://host/db"
    assert "secret" not in repr(location)


def test_without_the_extra_a_postgresql_url_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.checkpointers.url.find_spec", lambda name: None if name == "psycopg" else object())
    with pytest.raises(MissingExtra, match=r"pip install 'tidegate\[postgres\]'"):
        locate("postgresql://host/db")


@pytest.mark.parametrize(
    ("url", "way_out"),
    [
        ("postgresql://me:sec@ret@host/secret", "percent-encoded"),
        ("redis://me:secret@host/db", "starts with 'redis:'; use sqlite:///FILE"),
        ("tidegate.db", "use sqlite:///FILE, file:///FOLDER, postgresql://HOST/DATABASE or memory:"),
        ("secret", "use sqlite:///FILE"),
        ("", "use sqlite:///FILE"),
        ("memory://secret", "take nothing after the colon; use memory:"),
        ("sqlite:tidegate.db", "three slashes are relative"),
        ("sqlite:///", "three slashes are relative"),
        ("sqlite://secret/tidegate.db", "three slashes are relative"),
        ("sqlite:///tidegate.db?password=secret", "with no options after it"),
        ("sqlite:///:memory:", "use memory:"),
        ("file:///", "three slashes are relative"),
        ("file:////", "three slashes are relative"),
        ("file:///a\0b", "three slashes are relative"),
    ],
)
async def test_a_url_that_no_saver_has_is_a_setting_to_change(url: str, way_out: str) -> None:
    with pytest.raises(SettingsError) as caught:
        async with open_checkpointer(url):
            pass
    assert way_out in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite:///{}/no/tidegate.db", "file:///{}/no/folder"])
def test_a_missing_folder_is_named(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"/no.*does not exist; create it or name another"):
        asyncio.run(_open_and_put(url.format(tmp_path)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite:///{}/notes.txt", "file:///{}/notes.txt"])
async def test_a_file_that_holds_something_else_is_left_alone(url: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("these are my notes, and they are longer than the header of a database\n" * 20)
    before = notes.read_bytes()
    with pytest.raises(SettingsError, match=r"notes\.txt: .*(another file|name a folder)"):
        async with open_checkpointer(url.format(tmp_path)):
            pass
    assert notes.read_bytes() == before


async def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot open .*; check its permissions or name another file"):
        async with open_checkpointer(f"sqlite:///{tmp_path}"):
            pass


def test_what_cannot_be_written_is_found_when_it_is_opened(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/a/tidegate.db", f"sqlite:///{tmp_path}/b/tidegate.db", f"file:///{tmp_path}/c"]
    for url in urls:
        locate(url).checkpoints.parent.mkdir(exist_ok=True)  # type: ignore[union-attr]
        asyncio.run(_open_and_put(url))
    for path, mode in (("a/tidegate.db", 0o444), ("a", 0o555), ("b/tidegate.db", 0o444), ("b", 0o777)):
        (tmp_path / path).chmod(mode)
    for path in ("c/threads", "c", "."):
        (tmp_path / path).chmod(0o555)
    script = f"""
        import asyncio, os, sys, tidegate.checkpointers.json_file, tidegate.checkpointers.sqlite
        from tidegate.checkpointers import open_checkpointer
        from tidegate.errors import SettingsError

        async def main(url):
            try:
                async with open_checkpointer(url):
                    print("opened")
            except SettingsError as error:
                print(error)

        if os.geteuid() == 0:  # root may write anything, so become somebody else
            os.chdir({str(tmp_path)!r})
            for folder in {_parents(tmp_path)!r}:
                os.chmod(folder, 0o755)
            os.setgid(65534)
            os.setuid(65534)
        for url in {urls!r}:
            asyncio.run(main(url))
    """
    lines = _python(script).splitlines()
    assert [line.rpartition("; ")[2] for line in lines] == [
        "make it writable, move it away or name another file",
        "make it writable, move it away or name another file",
        "name a folder that files can be written in",
    ]


def _parents(folder: Path) -> list[str]:
    """Return the folders above, up to the one for temporary files."""
    return [str(above) for above in folder.parents if Path(tempfile.gettempdir()) in above.parents]


async def _open_and_put(url: str) -> None:
    async with open_checkpointer(url) as saver:
        await saver.aput(at(), checkpoint(), {}, {})


def test_a_saver_is_imported_when_it_is_opened(tmp_path: Path) -> None:
    _python(f"""
        import asyncio, sys
        from tidegate.checkpointers import locate, open_checkpointer

        async def main():
            async with open_checkpointer("file:///{tmp_path}/folder"):
                assert "aiosqlite" not in sys.modules

        assert not {{"langgraph", "langchain_core", "aiosqlite", "sqlite3", "pydantic"}} & set(sys.modules)
        asyncio.run(main())
        locate("postgresql://host/db")
        assert not {{"psycopg", "psycopg_pool", "langgraph.checkpoint.postgres"}} & set(sys.modules)
    """)


def _python(script: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# every saver


class Item(TypedDict):
    id: str


class State(TypedDict, total=False):
    text: str
    done: Annotated[dict[str, str], operator.or_]
    answer: str


def graph(saver: BaseCheckpointSaver[Any]) -> CompiledStateGraph[State, None, State, State]:
    async def work(state: Item) -> State:
        return {"done": {state["id"]: "✓"}}

    async def ask(state: State) -> State:
        return {"answer": interrupt({"retry_in": 3.5})}

    builder = StateGraph(State)
    builder.add_node("work", work)
    builder.add_node("ask", ask)
    builder.add_conditional_edges(START, lambda state: [Send("work", {"id": each}) for each in state["text"]], ["work"])
    builder.add_edge("work", "ask")
    builder.add_edge("ask", END)
    return builder.compile(checkpointer=saver)


async def test_a_graph_is_interrupted_and_resumed(url: str) -> None:
    async with open_checkpointer(url) as saver, open_checkpointer(url) as other:
        stopped = await graph(saver).ainvoke({"text": "abc"}, at(), durability="sync")
        assert [each.value for each in stopped["__interrupt__"]] == [{"retry_in": 3.5}]
        if url != "memory:":
            saver = other  # which finds what is stored, as another process would
        finished = await graph(saver).ainvoke(Command(resume="yes"), at(), durability="sync")
    assert finished == {"text": "abc", "done": {"a": "✓", "b": "✓", "c": "✓"}, "answer": "yes"}


async def test_a_history_can_be_left_early_and_read_while_it_goes_on(url: str) -> None:
    async with open_checkpointer(url) as saver, asyncio.timeout(10):
        app = graph(saver)
        await app.ainvoke({"text": "abc"}, at(), durability="sync")
        async for each in saver.alist(at()):
            assert (await saver.aget_tuple(each.config)) == each
            break
        await saver.aput(at(), checkpoint(), {}, {})


@dataclass
class Stranger:
    made = 0
    name: str

    def __post_init__(self) -> None:
        Stranger.made += 1


async def test_stored_types_that_are_not_langgraphs_own_are_not_called(url: str) -> None:
    usual = JsonPlusSerializer()
    assert usual.loads_typed(usual.dumps_typed(Stranger("x"))) == Stranger("x")
    async with open_checkpointer(url) as saver:
        stored = await saver.aput(
            at(), checkpoint(value=Stranger("x"), sent=[Send("a", {"b": 1})]), {}, {"value": 1, "sent": 1}
        )
        Stranger.made = 0
        loaded = await saver.aget_tuple(stored)
    assert loaded is not None
    assert loaded.checkpoint["channel_values"] == {"value": {"name": "x"}, "sent": [Send("a", {"b": 1})]}
    assert Stranger.made == 0


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans, "_tracer", provider.get_tracer("tidegate"))
    yield exporter
    provider.shutdown()


async def test_a_put_is_seen_as_a_span(url: str, exported: InMemorySpanExporter) -> None:
    async with open_checkpointer(url) as saver:
        small, large = checkpoint(text="x"), checkpoint(text="x" * 20_000)
        for each, step in ((small, 1), (large, 2)):
            await saver.aput(at(), each, {"step": step, "source": "loop"}, {"text": 1})
    first, second = exported.get_finished_spans()
    assert first.name == names.CHECKPOINT_PUT
    assert _attributes(first) == {
        names.CHECKPOINT_ID: small["id"],
        names.CHECKPOINT_STEP: 1,
        names.CHECKPOINT_SOURCE: "loop",
        names.CHECKPOINT_BYTES: _attributes(first)[names.CHECKPOINT_BYTES],
    }
    sizes = [_attributes(each)[names.CHECKPOINT_BYTES] for each in (first, second)]
    assert 100 < sizes[0] < 1000
    assert 20_000 < sizes[1] < 22_000


async def test_a_put_without_a_current_span_belongs_to_the_execution(url: str, exported: InMemorySpanExporter) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with open_checkpointer(url) as saver:
        await saver.aput(at(**{names.TRACEPARENT: parent}), checkpoint(), {}, {})
        await asyncio.to_thread(saver.put, at(**{names.TRACEPARENT: parent}), checkpoint(), {}, {})
    for span in exported.get_finished_spans():
        assert span.context is not None
        assert f"{span.context.trace_id:032x}" in parent
    assert len(exported.get_finished_spans()) == 2


def _attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_the_blocking_door_to_postgres_keeps_what_it_is_given(postgres_url: str) -> None:
    with open_checkpointer_sync(postgres_url) as saver:
        saver.put(at(), checkpoint(x=1), {"source": "input", "step": 0, "parents": {}}, {"x": 1})
    with open_checkpointer_sync(postgres_url) as saver:
        found = saver.get_tuple(at())
        assert found is not None
        assert found.checkpoint["channel_values"] == {"x": 1}


async def test_a_key_is_refused_where_nothing_would_be_encrypted(postgres_url: str) -> None:
    settings = Settings(checkpoints=postgres_url, encryption_key=SecretStr("sixteen bytes it"))
    with pytest.raises(SettingsError, match="are not encrypted"):
        async with Pipeline.open(settings):
            pass
    with pytest.raises(SettingsError, match="are not encrypted"):
        async with open_checkpointer(postgres_url, key=b"sixteen bytes it"):
            pass


@pytest.mark.parametrize(
    ("url", "options", "told"),
    [
        ("sqlite:///t.db", {"synchronous": "FUL"}, "synchronous is FULL or NORMAL, not 'FUL'"),
        ("memory:", {"synchronous": "NORMAL"}, "synchronous is for sqlite:///FILE alone"),
        ("sqlite:///t.db", {"key": "0123456789abcdef"}, "given as bytes"),
    ],
)
async def test_an_option_that_would_be_misunderstood_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, options: dict[str, Any], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=told):
        async with open_checkpointer(url, **options):
            pass
    with pytest.raises(SettingsError, match=told), open_checkpointer_sync(url, **options):
        pass
    assert not list(tmp_path.iterdir())


async def test_one_text_is_no_list_of_threads() -> None:
    async with open_checkpointer("memory:") as saver:
        with pytest.raises(TypeError, match=r"give a list of thread IDs, as \['22'\]"):
            await saver.aprune("22")
        with pytest.raises(TypeError, match="give a list of thread IDs"):
            saver.prune("22", strategy="delete")
