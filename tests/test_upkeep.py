"""Looking after threads: what the commands and `Pipeline` do to what is stored."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from tests.checkpoints import checkpoint
from tests.servers.enrichment import EnrichmentServer
from tidegate import Pipeline, Settings, errors
from tidegate.checkpointers import open_checkpointer, open_checkpointer_sync
from tidegate.cli import main
from tidegate.settings import EnrichmentSettings
from tidegate.store.codec import Codec
from tidegate.store.leases import Lease, Leases
from tidegate.store.opening import store_at

TEXT = "They sailed from Alta to Bergen, and from there to Cork."


@pytest.fixture(params=["sqlite:///{}/tidegate.db", "file:///{}/kept", "memory:"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return Settings(checkpoints=request.param.format(tmp_path), recogniser="rules")


@pytest.fixture
async def pipeline(settings: Settings) -> AsyncIterator[Pipeline]:
    async with Pipeline.open(settings) as opened:
        yield opened


async def test_a_deleted_thread_is_gone_and_others_stay(pipeline: Pipeline) -> None:
    await pipeline.run(text=TEXT, thread_id="a")
    await pipeline.run(text=TEXT, thread_id="b")
    await pipeline.delete("a")
    for look in (pipeline.inspect("a"), pipeline.resume("a"), pipeline.delete("a")):
        with pytest.raises(errors.ThreadNotFound):
            await look
    assert [record.thread_id for record in await pipeline.threads()] == ["b"]
    assert (await pipeline.inspect("b")).status == "complete"
    again = await pipeline.run(text=TEXT, thread_id="a")
    assert (again.status, again.revision) == ("complete", 1)


async def test_a_copy_holds_what_the_thread_held_and_goes_its_own_way(pipeline: Pipeline) -> None:
    original = await pipeline.run(text=TEXT, thread_id="a")
    await pipeline.copy("a", "b")
    copied = await pipeline.inspect("b")
    assert copied.to_dict() | {"thread_id": "a"} == original.to_dict()
    assert len(await pipeline.history("b")) == len(await pipeline.history("a"))
    with pytest.raises(errors.ThreadError, match="exists already"):
        await pipeline.copy("a", "b")
    await pipeline.delete("a")
    assert (await pipeline.resume("b")).status == "complete"


async def test_what_is_not_there_cannot_be_copied(pipeline: Pipeline) -> None:
    await pipeline.run(text=TEXT, thread_id="a")
    await pipeline._upkeep._saver.adelete_thread("a")
    with pytest.raises(errors.CheckpointDamaged, match="its checkpoints are gone"):
        await pipeline.copy("a", "b")
    with pytest.raises(errors.ThreadNotFound):
        await pipeline.copy("c", "b")
    assert [record.thread_id for record in await pipeline.threads()] == ["a"]


async def test_a_document_is_forgotten_by_its_files_name_whatever_bytes_that_has(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    for name in ("\udcff", "no\udcffte.txt"):
        with pytest.raises(errors.DocumentNotFound, match="names no document"):
            await pipeline.forget(name)
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/note\xff.txt"))
    path.write_text(TEXT)
    await pipeline.run(path, thread_id="a")
    assert (await pipeline.forget(str(path))).threads == ("a",)


async def test_a_forgotten_document_takes_threads_answers_and_bytes_with_it(tmp_path: Path) -> None:
    with EnrichmentServer() as server:
        api = EnrichmentSettings(adapter="http", url=server.url, types=("LOC",))
        settings = Settings(checkpoints=f"sqlite:///{tmp_path}/t.db", recogniser="rules", enrichment=api)
        async with Pipeline.open(settings) as pipeline:
            one = await pipeline.run(text=TEXT, name="secret.txt", thread_id="a")
            await pipeline.run(text=TEXT, name="secret.txt", thread_id="b")
            await pipeline.run(text="They came to Dover.", name="other.txt", thread_id="c")
            assert one.document is not None
            forgotten = await pipeline.forget("secret.txt")
            assert (forgotten.document_id, set(forgotten.threads)) == (one.document.id, {"a", "b"})
            assert forgotten.calls == len({entity.text for entity in one.entities if entity.type == "LOC"}) > 0
            with pytest.raises(errors.DocumentNotFound, match="no document"):
                await pipeline.forget(one.document.id[:8])
            assert [record.thread_id for record in await pipeline.threads()] == ["c"]
            assert await pipeline.damage() == []
    with sqlite3.connect(tmp_path / "t.db") as connection:
        documents = connection.execute("SELECT count(*) FROM documents").fetchone()[0]
        answers = connection.execute("SELECT count(*) FROM calls WHERE thread_id <> 'c'").fetchone()[0]
    assert (documents, answers) == (1, 0)


@pytest.mark.parametrize(("url", "file"), [("sqlite:///{}/t.db", "t.db"), ("file:///{}/kept", "kept/store.db")])
async def test_a_forgotten_document_gives_its_space_back_and_leaves_no_value(
    url: str, file: str, tmp_path: Path
) -> None:
    prose = " ".join(f"{number * 2654435761 % 2**32:x}" for number in range(20_000))
    async with Pipeline.open(Settings(checkpoints=url.format(tmp_path), recogniser="rules")) as pipeline:
        await pipeline.run(text=prose, name="note", thread_id="a")
        await pipeline.forget("note")
    with sqlite3.connect(tmp_path / file) as connection:
        assert connection.execute("PRAGMA freelist_count").fetchone() == (0,)
        for table in ("documents", "blobs", "channel_values", "writes", "calls", "threads"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table  # noqa: S608
    assert (tmp_path / file).stat().st_size < len(prose)


async def test_answers_of_a_thread_that_was_deleted_are_forgotten_with_its_document(tmp_path: Path) -> None:
    with EnrichmentServer() as server:
        api = EnrichmentSettings(adapter="http", url=server.url, types=("LOC",))
        settings = Settings(checkpoints=f"sqlite:///{tmp_path}/t.db", recogniser="rules", enrichment=api)
        async with Pipeline.open(settings) as pipeline:
            deleted = await pipeline.run(text=TEXT, thread_id="a")
            await pipeline.delete("a")
            await pipeline.run(text="They came to Dover.", thread_id="a")  # the same ID, another document
            assert deleted.document is not None
            assert (await pipeline.forget(deleted.document.id)).calls == 3
    with sqlite3.connect(tmp_path / "t.db") as connection:
        assert connection.execute("SELECT count(*) FROM calls").fetchone() == (1,)


async def test_a_thread_that_runs_while_its_document_is_being_forgotten_is_forgotten_too(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pipeline.run(text=TEXT, name="note", thread_id="a")
    leases = pipeline._wired.leases
    acquire = leases.acquire

    async def run_another(thread_id: str) -> Lease:
        monkeypatch.setattr(leases, "acquire", acquire)
        await pipeline.run(text=TEXT, name="note", thread_id="late")
        return await acquire(thread_id)

    monkeypatch.setattr(leases, "acquire", run_another)
    assert (await pipeline.forget("note")).threads == ("a", "late")
    assert await pipeline.threads() == []
    with pytest.raises(errors.ThreadNotFound):
        await pipeline.inspect("late")


async def test_a_source_that_looks_like_the_beginning_of_a_hash_can_be_forgotten_by_name(pipeline: Pipeline) -> None:
    await pipeline.run(text=TEXT, name="20240131", thread_id="a")
    assert (await pipeline.forget("20240131")).threads == ("a",)


async def test_a_name_that_several_documents_have_is_not_enough(pipeline: Pipeline) -> None:
    await pipeline.run(text="They came to Alta.", name="note", thread_id="a")
    await pipeline.run(text="They came to Cork.", name="note", thread_id="b")
    with pytest.raises(errors.DocumentNotFound, match="names 2 documents"):
        await pipeline.forget("note")
    assert len(await pipeline.threads()) == 2


async def test_a_thread_that_is_being_run_is_not_touched(pipeline: Pipeline, settings: Settings) -> None:
    await pipeline.run(text=TEXT, thread_id="a")
    await pipeline._wired.leases.acquire("a")
    for change in (pipeline.delete("a"), pipeline.copy("a", "b")):
        with pytest.raises(errors.ThreadBusy):
            await change
    assert (await pipeline.inspect("a")).status == "complete"


async def test_pruning_keeps_what_was_published(pipeline: Pipeline) -> None:
    result = await pipeline.run(text=TEXT, thread_id="a")
    before = len(await pipeline.history("a"))
    await pipeline.run(text=TEXT, thread_id="b")
    assert await pipeline.prune(older_than=3600.0) == (0, 0)
    assert await pipeline.prune(keep_last=before, older_than=3600.0) == await pipeline.prune() == (0, 0)
    assert len(await pipeline.history("a")) == before
    pruned = await pipeline.prune(keep_last=1)
    after = len(await pipeline.history("a"))
    assert pruned == (2 * (before - after), 2)
    assert after < before
    assert await pipeline.inspect("a") == result
    assert (await pipeline.resume("a")).revision == 1


@pytest.mark.parametrize("kind", ["sqlite", "file", "memory", "postgres"])
async def test_a_thread_may_be_pruned_while_it_is_run(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = {"sqlite": f"sqlite:///{tmp_path}/t.db", "file": f"file:///{tmp_path}/kept", "memory": "memory:"}
    url = urls.get(kind) or request.getfixturevalue("postgres_url")
    async with Pipeline.open(Settings(checkpoints="memory:", recogniser="rules")) as undisturbed:
        expected = await undisturbed.run(text=TEXT, name="note", thread_id="a")
    settings = Settings(checkpoints=url, recogniser="rules")
    async with Pipeline.open(settings) as pipeline, open_checkpointer(url) as other:
        saver = pipeline._upkeep._saver
        pruner, pruned = (saver if kind == "memory" else other), 0

        def then_pruned(store: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            async def stored(*arguments: Any, **options: Any) -> Any:
                nonlocal pruned
                result = await store(*arguments, **options)
                await pruner.aprune(["a"])
                pruned += 1
                return result

            return stored

        for name in ("aput", "aput_writes"):
            monkeypatch.setattr(saver, name, then_pruned(getattr(saver, name)))
        pipeline._executions._graph.interrupt_before_nodes = ["gate_summary"]
        assert (await pipeline.run(text=TEXT, name="note", thread_id="a")).status == "unfinished"
        pipeline._executions._graph.interrupt_before_nodes = []
        assert await pipeline.resume("a") == expected
        assert pruned > 10
        assert len(await pipeline.history("a")) < 4


async def test_a_delete_whose_lease_was_lost_writes_nothing(
    pipeline: Pipeline, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = await pipeline.run(text=TEXT, name="note", thread_id="a")
    await _refuses_without_a_lease(pipeline, monkeypatch, in_memory=settings.checkpoints == "memory:")
    if settings.checkpoints != "memory:":
        assert await pipeline.inspect("a") == result
    assert [record.thread_id for record in await pipeline.threads()] == ["a"]
    assert result.document is not None
    assert await pipeline._wired.documents.get(result.document.id)


async def test_so_does_one_in_postgres(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Pipeline.open(Settings(checkpoints=postgres_url, recogniser="rules")) as pipeline:
        result = await pipeline.run(text=TEXT, name="note", thread_id="a")
        await _refuses_without_a_lease(pipeline, monkeypatch)
        assert await pipeline.inspect("a") == result


async def _refuses_without_a_lease(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, *, in_memory: bool = False
) -> None:
    leases, saver = pipeline._wired.leases, pipeline._upkeep._saver
    acquire = leases.acquire

    async def lose(thread_id: str) -> Lease:
        lease = await acquire(thread_id)
        await leases.release(lease)
        return lease

    lost = await lose("a")
    if not in_memory:  # which no other process can take a thread of
        with pytest.raises(errors.LeaseLost):
            await saver.adelete_thread("a", leases=[lost])
        with pytest.raises(errors.LeaseLost):
            await saver.acopy_thread("a", "b", leases=[lost])
        assert await saver.aget_tuple({"configurable": {"thread_id": "b", "checkpoint_ns": ""}}) is None
    monkeypatch.setattr(leases, "acquire", lose)
    for change in (pipeline.forget("note"), pipeline.copy("a", "b"), pipeline.delete("a")):
        with pytest.raises(errors.LeaseLost):
            await change


async def test_the_doctor_says_why_each_thread_is_not_finished(pipeline: Pipeline, settings: Settings) -> None:
    await pipeline.run(text=TEXT, thread_id="done")
    assert await pipeline.diagnose() == []
    executions, registry = pipeline._executions, pipeline._wired.registry
    executions._graph.interrupt_before_nodes = ["gate_summary"]
    for thread_id in ("killed", "busy", "old"):
        await pipeline.run(text=TEXT, thread_id=thread_id)
    await pipeline._wired.leases.acquire("busy")
    lagging = await registry.get("done")
    assert lagging is not None
    await registry.put(executions._new_record("done", {"document_sha256": lagging.document_id}))
    await registry.put(executions._new_record("unstarted", {"document_sha256": lagging.document_id}))
    found = {each.thread_id: each for each in await pipeline.diagnose()}
    assert {key: each.state for key, each in found.items()} == {
        "done": "lagging",
        "killed": "interrupted",
        "old": "interrupted",
        "busy": "running",
        "unstarted": "interrupted",
    }
    assert found["killed"].reason == "its process ended before gate_summary"
    assert found["killed"].helps == "resume"
    assert "is being run by process" in found["busy"].reason
    executions._graph.nodes.pop("gate_summary")
    found = {each.thread_id: each for each in await pipeline.diagnose()}
    assert (found["old"].state, found["old"].reason[:24]) == ("incompatible", "waits for gate_summary, ")
    problems = {each.thread_id: each.problem for each in await pipeline.check_threads()}
    assert {key for key, problem in problems.items() if problem} == {"killed", "busy", "old"}


async def test_the_doctor_counts_the_checkpoints_of_a_fork_that_led_nowhere(pipeline: Pipeline) -> None:
    pipeline._executions._graph.interrupt_before_nodes = ["gate_summary"]
    await pipeline.run(text=TEXT, thread_id="a")
    first = (await pipeline.history("a"))[-2]
    config: Any = {"configurable": {"thread_id": "a", "checkpoint_id": first.checkpoint_id, "checkpoint_ns": ""}}
    await pipeline.graph.aupdate_state(config, {}, as_node="ingest")
    kept = len(await pipeline.history("a"))
    [finding] = await pipeline.diagnose()
    assert f"; {kept - 3} of its checkpoints are a fork that led nowhere" in finding.reason


async def test_a_checkpoint_that_was_put_on_top_of_itself_does_not_hold_the_doctor_up(pipeline: Pipeline) -> None:
    pipeline._executions._graph.interrupt_before_nodes = ["gate_summary"]
    await pipeline.run(text=TEXT, thread_id="a")
    saver = pipeline._upkeep._saver
    newest = await saver.aget_tuple({"configurable": {"thread_id": "a", "checkpoint_ns": ""}})
    assert newest is not None
    await saver.aput(newest.config, newest.checkpoint, newest.metadata, {})
    [finding] = await pipeline.diagnose()
    assert finding.state == "interrupted"


@pytest.fixture
def tidegate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEGATE_RECOGNISER", "rules")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tidegate", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def test_the_commands(tidegate: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text(TEXT)
    assert tidegate("run", "-q", "--thread-id", "a", "note.txt")[0] == 0
    assert tidegate("doctor")[:2] == (0, "every thread is finished\n")
    assert tidegate("check-threads")[:2] == (0, "THREAD\na       can be resumed\n")
    assert "gate_enrichment" in tidegate("history", "a")[1]
    assert tidegate("copy", "a", "b")[:2] == (0, "copied thread a to b\n")
    assert tidegate("prune", "--keep-last", "1", "--older-than", "0")[:2] == (
        0,
        "removed 18 checkpoints of 2 threads\n",
    )
    assert tidegate("prune")[0] == tidegate("prune", "--finished", "0.5")[0] == 2
    assert tidegate("prune", "--finished", "30", "--older-than", "0")[:2] == (
        0,
        "forgot 0 finished threads\nremoved 0 checkpoints of 0 threads\n",
    )
    assert tidegate("delete", "a")[:2] == (0, "deleted thread a\n")
    assert tidegate("delete", "a")[0] == tidegate("copy", "a", "c")[0] == 6
    code, out, _ = tidegate("forget", "note.txt")
    assert (code, out.endswith("and threads b\n")) == (0, True)
    assert tidegate("forget", "note.txt")[0] == 6
    assert tidegate("threads")[1] == "no threads\n"


def test_the_doctor_exits_with_a_code_of_its_own(tidegate: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text(TEXT)
    (tmp_path / "tidegate.toml").write_text('[enrichment]\nadapter = "http"\nurl = "http://127.0.0.1:9/"\n')
    assert tidegate("run", "-q", "--thread-id", "t", "--when-open", "wait", "note.txt")[0] == 4
    code, out, _ = tidegate("doctor", "--json")
    [finding] = json.loads(out)["threads"]
    assert (code, finding["state"], finding["command"]) == (20, "waiting", "tidegate resume t --when-open wait")
    assert finding["reason"].startswith("enrichment: circuit open, to be tried in")


def test_the_doctor_counts_the_degraded_and_says_how_to_heal_them(
    tidegate: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_text(TEXT)
    (tmp_path / "tidegate.toml").write_text('[enrichment]\nadapter = "http"\nurl = "http://127.0.0.1:9/"\n')
    where = ("--checkpoints", "sqlite:///of mine.db")
    assert tidegate("run", "-q", *where, "note.txt")[0] == 0
    assert tidegate("doctor", *where)[:2] == (
        0,
        "every thread is finished\n"
        "degraded threads: 1, of which 1 may be completed: tidegate backfill --checkpoints 'sqlite:///of mine.db'\n",
    )
    found = json.loads(tidegate("doctor", "--json", *where)[1])
    assert (found["threads"], found["degraded"], found["degraded_retryable"]) == ([], 1, 1)
    with sqlite3.connect(tmp_path / "of mine.db") as connection:
        connection.execute("UPDATE threads SET retryable_missing = 0")
    assert tidegate("doctor", *where)[1].endswith("\ndegraded threads: 1; what they lack is final\n")


@pytest.mark.parametrize("kind", ["sqlite", "file", "postgres"])
def test_the_doctor_finds_a_result_that_is_gone(
    kind: str, tidegate: Callable[..., tuple[int, str, str]], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    urls = {"sqlite": "sqlite:///t.db", "file": "file:///kept"}
    where = ("--checkpoints", urls.get(kind) or request.getfixturevalue("postgres_url"))
    (tmp_path / "note.txt").write_text(TEXT)
    for thread_id in ("a", "b"):
        assert tidegate("run", "-q", "--thread-id", thread_id, *where, "note.txt")[0] == 0
    if kind == "file":
        shutil.rmtree(tmp_path / "kept/threads/a")
    else:
        with open_checkpointer_sync(where[1]) as saver:
            saver.delete_thread("a")
    code, out, _ = tidegate("doctor", "--json", *where)
    [finding] = json.loads(out)["threads"]
    assert (code, finding["thread_id"], finding["state"]) == (20, "a", "damaged")
    assert finding["reason"].startswith("has published revision 1, and its checkpoints are gone")
    if kind != "postgres":
        assert finding["command"] == f"tidegate delete a --checkpoints {where[1]}"
    assert tidegate("delete", "a", *where)[0] == 0
    assert tidegate("doctor", *where)[:2] == (0, "every thread is finished\n")


def test_a_store_whose_rows_lost_what_they_name_is_found_damaged(
    tidegate: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_text(TEXT * 40)
    assert tidegate("run", "-q", "note.txt")[0] == 0
    with sqlite3.connect(tmp_path / "tidegate.db") as connection:
        connection.execute("DELETE FROM blobs")
    code, out, _ = tidegate("doctor")
    assert (code, "names one of blobs that is gone; restore the file from a copy" in out) == (20, True)


def test_threads_of_langgraphs_own_sqlite_saver_are_taken_over(
    tidegate: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    async def fill() -> None:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "old.db")) as saver:
            config: Any = {"configurable": {"thread_id": "x", "checkpoint_ns": ""}}
            await saver.aput(config, checkpoint(value=1), {"source": "input", "step": 0, "parents": {}}, {"value": 1})

    asyncio.run(fill())
    assert tidegate("import", "old.db")[:2] == (
        0,
        "took over 1 checkpoints, for the graph that wrote them; `tidegate threads` lists Tidegate's own\n",
    )
    assert tidegate("import", "old.db", "--checkpoints", "memory:")[0] == 2
    assert tidegate("delete", "x")[:2] == (0, "deleted thread x\n")
    assert tidegate("delete", "x")[0] == 6


async def test_a_lease_says_who_holds_it_without_taking_it(tmp_path: Path) -> None:
    database = store_at(tmp_path / "t.db")
    leases = Leases(database)
    assert await leases.holder("t") is None
    lease = await leases.acquire("t")
    holder = await leases.holder("t")
    assert isinstance(holder, errors.ThreadBusy)
    await leases.release(lease)
    assert await leases.holder("t") is None
    await database.close()


async def test_a_document_without_a_thread_can_be_forgotten_too(pipeline: Pipeline) -> None:
    result = await pipeline.run(text=TEXT, name="note", thread_id="a")
    assert result.document is not None
    await pipeline.delete("a")
    with pytest.raises(errors.DocumentNotFound):
        await pipeline.forget("note")
    forgotten = await pipeline.forget(result.document.id[:12])
    assert (forgotten.document_id, forgotten.threads) == (result.document.id, ())
    with pytest.raises(errors.DocumentNotFound):
        await pipeline.forget(result.document.id)


async def test_a_document_one_of_whose_threads_runs_is_not_forgotten_in_part(pipeline: Pipeline) -> None:
    for thread_id in ("a", "b"):
        await pipeline.run(text=TEXT, name="note", thread_id=thread_id)
    lease = await pipeline._wired.leases.acquire("b")
    with pytest.raises(errors.ThreadBusy):
        await pipeline.forget("note")
    assert (await pipeline.inspect("a")).status == (await pipeline.inspect("b")).status == "complete"
    await pipeline._wired.leases.release(lease)
    assert set((await pipeline.forget("note")).threads) == {"a", "b"}


async def test_what_can_be_no_thread_id_is_none_for_a_copy_either(pipeline: Pipeline) -> None:
    await pipeline.run(text=TEXT, thread_id="a")
    for no_id in ("", "x" * 1000, "\udcff"):
        for look in (pipeline.copy("a", no_id), pipeline.copy(no_id, "b"), pipeline.delete(no_id)):
            with pytest.raises(errors.SettingsError, match="cannot be a thread ID"):
                await look
        for look_at in (pipeline.inspect(no_id), pipeline.resume(no_id), pipeline.history(no_id)):
            with pytest.raises(errors.SettingsError, match="cannot be a thread ID"):
                await look_at
    assert [each.thread_id for each in await pipeline.check_threads()] == ["a"]


async def test_a_damaged_checkpoint_is_a_finding_of_the_doctor_and_not_its_end(tmp_path: Path) -> None:
    async with Pipeline.open(Settings(checkpoints=f"sqlite:///{tmp_path}/t.db", recogniser="rules")) as pipeline:
        pipeline._executions._graph.interrupt_before_nodes = ["gate_summary"]
        await pipeline.run(text=TEXT, thread_id="a")
        await pipeline.run(text=TEXT, thread_id="b")
        with sqlite3.connect(tmp_path / "t.db") as connection:
            connection.execute("UPDATE checkpoints SET body = zeroblob(9) WHERE thread_id = 'a'")
        found = {each.thread_id: (each.state, each.helps) for each in await pipeline.diagnose()}
    assert found == {"a": ("damaged", "delete"), "b": ("interrupted", "resume")}


@pytest.mark.parametrize("table", ["documents", "blobs", "checkpoints", "calls"])
async def test_the_doctor_sees_a_single_byte_that_changed(table: str, tmp_path: Path) -> None:
    columns = {"documents": "data", "blobs": "data", "checkpoints": "body", "calls": "answer"}
    url = f"sqlite:///{tmp_path}/t.db"
    async with Pipeline.open(Settings(checkpoints=url, recogniser="rules")) as pipeline:
        await pipeline.run(text=TEXT * 100, thread_id="a")
        assert await pipeline.damage() == []
        with sqlite3.connect(tmp_path / "t.db") as connection:
            connection.execute(
                "INSERT INTO calls (cache_key, service, operation, idempotency_key, intended_at, answered_at, answer) "
                "VALUES ('key', 's', 'o', 'k', 0.0, 0.0, ?)",
                (Codec().pack(b"{}"),),
            )
            column = columns[table]
            (packed,) = connection.execute(f"SELECT {column} FROM {table} LIMIT 1").fetchone()  # noqa: S608
            changed = packed[:-1] + bytes((packed[-1] ^ 1,))
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (changed, packed))  # noqa: S608
        [problem] = await pipeline.damage()
    assert problem.startswith(f"{table}: ")
    assert problem.endswith("; restore the file from a copy")


@pytest.mark.parametrize("kind", ["file", "postgres"])
async def test_the_doctor_reads_the_checkpoints_of_other_savers_too(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"file:///{tmp_path}/kept" if kind == "file" else request.getfixturevalue("postgres_url")
    async with Pipeline.open(Settings(checkpoints=url, recogniser="rules")) as pipeline:
        for thread_id in ("a", "b"):
            await pipeline.run(text=TEXT, thread_id=thread_id)
        assert await pipeline.damage() == []
        if kind == "file":
            next((tmp_path / "kept/threads/a/checkpoints").glob("*.json")).write_text("{")
        else:
            await pipeline._wired.store.write(
                lambda connection: (
                    connection.execute("UPDATE checkpoints SET checkpoint = '{}' WHERE thread_id = ?", ("a",)).rowcount
                )
            )
        [problem] = await pipeline.damage()
    assert "thread 'a'" in problem
