"""The S3 trigger against moto's S3 and SQS: no event is lost, none runs twice, and whatever fails is waited out."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.doors import fetching
from tests.servers.aws import CREDENTIALS, REGION, Aws, Mailbox, aws
from tests.test_s3_events import TRACE, record
from tidegate import Pipeline, Settings
from tidegate.engine.in_process import InProcessEngine
from tidegate.engine.port import Unreadable
from tidegate.errors import SettingsError, StoreUnavailable
from tidegate.resilience.faults import Behaviour, FaultyServer, Reply
from tidegate.settings.service import S3Trigger as S3Settings
from tidegate.store.clock import Clock, SystemClock
from tidegate.store.database import Database
from tidegate.store.documents import Documents
from tidegate.store.inbox import Envelope, Inbox, Receipt
from tidegate.store.registry import Registry, ThreadRecord
from tidegate.store.schema import STORE
from tidegate.testing import ManualClock
from tidegate.triggers.door import Door
from tidegate.triggers.opening import open_trigger
from tidegate.triggers.s3 import clients as s3_clients
from tidegate.triggers.s3 import trigger as s3
from tidegate.triggers.s3.trigger import S3Trigger

pytestmark = pytest.mark.slow

PATIENCE = 20.0
"""Real seconds after which a condition that did not come true fails its test."""


class Taking:
    """The least of an engine: takes events in, as `InProcessEngine` does; `before` is awaited first."""

    def __init__(self, database: Database) -> None:
        self.inbox = Inbox(database, max_queued=1000)
        self.registry = Registry(database)
        self.documents = Documents(database)
        self.offered = 0

    async def before(self) -> None:
        """Do nothing; tests put something else here."""

    async def submit(self, event: Envelope | Unreadable) -> Receipt:
        self.offered += 1
        await self.before()
        if isinstance(event, Unreadable):
            return await self.inbox.refuse(event.source, event.id, event.error)
        return await self.inbox.accept(event)

    async def threads(self) -> list[ThreadRecord]:
        return await self.registry.threads(limit=None)

    def door(self, *, clock: Clock | None = None, max_document_bytes: int = 1000) -> Door:
        return Door(self, self.inbox, max_document_bytes=max_document_bytes, clock=clock)  # type: ignore[arg-type]

    async def run_worker(self) -> None: ...


@pytest.fixture(scope="module")
def cloud() -> Iterator[Aws]:
    with aws() as running:
        yield running


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**CREDENTIALS, "AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
async def taking(tmp_path: Path) -> AsyncIterator[Taking]:
    database = Database(tmp_path / "store.db", STORE)
    yield Taking(database)
    await database.close()


def settings(cloud: Aws, box: Mailbox | str, **more: Any) -> S3Settings:
    url = box if isinstance(box, str) else box.url
    given: dict[str, Any] = {"kind": "s3", "queue_url": url, "endpoint_url": cloud.url, "region": REGION, "wait": 1}
    return S3Settings(**{**given, **more})


@asynccontextmanager
async def running(settings: S3Settings, door: Door) -> AsyncIterator[asyncio.Task[None]]:
    """Run the trigger; what it ended with by itself is raised."""
    task = asyncio.create_task(S3Trigger(settings).run(door))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def begun(settings: S3Settings, door: Door) -> None:
    """Run a trigger that is to end by itself."""
    await asyncio.wait_for(S3Trigger(settings).run(door), PATIENCE)


async def until(condition: Callable[[], Any], task: asyncio.Task[None] | None = None) -> None:
    """Return as soon as the condition holds."""
    end = time.monotonic() + PATIENCE
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        assert time.monotonic() < end, "it did not come to be"
        assert task is None or not task.done(), "the trigger ended"
        await asyncio.sleep(0.01)


def event(box: Mailbox, key: str = "notice.txt", **more: Any) -> dict[str, Any]:
    made = record(key, **more)
    made["s3"]["bucket"]["name"] = box.bucket
    return made


async def test_an_object_that_is_put_becomes_a_thread_with_its_bytes_name_and_media_type(
    cloud: Aws, taking: Taking
) -> None:
    box = cloud.mailbox()
    box.notify()  # which sends a test event
    contents = {
        key: f"the document {number}".encode()
        for number, key in enumerate(["a b.txt", "a+b.txt", "a%2Bb.txt", "Überfahrt/漁港.md", "x" * 1024, "ü" * 512])
    }
    for key, data in contents.items():
        box.put(key, data, "text/markdown")
    async with running(settings(cloud, box), taking.door()) as task:
        await until(lambda: box.messages() == [], task)
    threads = await taking.threads()
    assert {each.source for each in threads} == {f"s3://{box.bucket}/{key}" for key in contents}
    assert {each.document_id for each in threads} == {hashlib.sha256(data).hexdigest() for data in contents.values()}
    assert {(each.status, each.media_type) for each in threads} == {("queued", "text/markdown")}
    assert await taking.documents.get(threads[0].document_id) in contents.values()


async def test_what_else_happens_in_the_bucket_is_acknowledged_and_starts_nothing(cloud: Aws, taking: Taking) -> None:
    box = cloud.mailbox()
    box.notify("s3:ObjectCreated:*", "s3:ObjectRemoved:*")
    box.remove("never-there.txt")
    box.send({"Records": [event(box, event="ObjectTagging:Put")]})
    box.put("folder/", b"")
    assert len(box.messages()) >= 3
    async with running(settings(cloud, box), taking.door()) as task:
        await until(lambda: box.messages() == [], task)
    assert await taking.threads() == []


async def test_a_control_character_in_a_key_is_not_shown(cloud: Aws, taking: Taking) -> None:
    box = cloud.mailbox()
    box.send({"Records": [event(box, "a\x1b[2Jb.txt")]})  # an object that is not there: moto's HTTP takes no such key
    async with running(settings(cloud, box), taking.door()) as task:
        await until(lambda: box.messages() == [], task)
    [thread] = await taking.threads()
    assert thread.source == f"s3://{box.bucket}/a\N{REPLACEMENT CHARACTER}[2Jb.txt"


async def test_each_version_of_an_object_is_read_as_it_was(cloud: Aws, taking: Taking) -> None:
    box = cloud.mailbox()
    box.keep_versions()
    versions = {box.put("notice.txt", data): data for data in (b"the first", b"the second")}
    for version in reversed(versions):  # out of order
        box.send({"Records": [event(box, versionId=version)]})
    async with running(settings(cloud, box), taking.door()) as task:
        await until(lambda: box.messages() == [], task)
    documents = {each.document_id for each in await taking.threads()}
    assert documents == {hashlib.sha256(data).hexdigest() for data in versions.values()}


async def test_events_that_come_again_and_in_any_order_are_one_thread_each(cloud: Aws, taking: Taking) -> None:
    box = cloud.mailbox()
    keys = ["a", "b", "c", "d", "e"]
    for key in keys:
        box.put(key, key.encode())
    for key in [*reversed(keys), *keys, *keys]:
        box.send({"Records": [event(box, key)]})
    async with running(settings(cloud, box), taking.door()) as task:
        await until(lambda: box.messages() == [], task)
    assert sorted(each.source for each in await taking.threads()) == [f"s3://{box.bucket}/{key}" for key in keys]


async def test_an_event_that_came_before_does_not_have_its_object_read_again(cloud: Aws, taking: Taking) -> None:
    box = cloud.mailbox()
    box.put("notice.txt")
    async with running(settings(cloud, box), taking.door()) as task:
        for _ in range(2):
            box.send({"Records": [event(box)]})
            await until(lambda: box.messages() == [], task)
            box.remove("notice.txt")
    assert taking.offered == 1
    [thread] = await taking.threads()
    assert thread.status == "queued"


async def test_a_message_is_deleted_only_after_all_of_its_records_are_stored(cloud: Aws, taking: Taking) -> None:
    box = cloud.mailbox()
    for key in ("a", "b"):
        box.put(key, key.encode())
    box.send({"Records": [event(box, "a"), event(box, "b")]})
    stored = asyncio.Event()

    async def hold_back() -> None:
        if taking.offered == 2:
            await stored.wait()

    taking.before = hold_back  # type: ignore[method-assign]
    async with running(settings(cloud, box), taking.door()) as task:
        await until(lambda: taking.offered == 2, task)
        assert box.waiting() == (0, 1)
        assert len(await taking.threads()) == 1
        stored.set()
        await until(lambda: box.messages() == [], task)
    assert len(await taking.threads()) == 2


async def test_while_the_store_is_away_a_message_is_kept_and_its_deliveries_are_not_used_up(
    cloud: Aws, taking: Taking, caplog: pytest.LogCaptureFixture
) -> None:
    box = cloud.mailbox()
    box.put("notice.txt")
    box.send({"Records": [event(box)]})
    clock = ManualClock(auto=True)
    receipts: list[int] = []

    async def go_away() -> None:
        [message] = box.messages()
        receipts.append(message.approximate_receive_count)
        if taking.offered <= 4:
            raise StoreUnavailable("postgresql://store: the connection was lost")

    taking.before = go_away  # type: ignore[method-assign]
    async with running(settings(cloud, box, wait=0), taking.door(clock=clock)) as task:
        await until(lambda: box.messages() == [], task)
    assert receipts == [1, 1, 1, 1, 1]
    assert len(await taking.threads()) == 1
    assert {1.0, 2.0, 4.0, 8.0} <= set(clock.slept)
    assert sum("connection was lost" in each.message for each in caplog.records) == 1


POISON = ["secret words", '{"secret": "words"}', '{"Records": [{"eventSource": "aws:s3", "secret": "words"}]}']


async def test_a_message_that_cannot_be_understood_ends_in_the_dead_letters_and_is_told_once(
    cloud: Aws, taking: Taking, caplog: pytest.LogCaptureFixture
) -> None:
    box = cloud.mailbox(redrive_after=2)
    for body in POISON:
        box.send(body)
    box.put("notice.txt")
    box.send({"Records": [event(box)]})
    dead: list[str] = []

    def all_dead() -> bool:
        for message in box.messages():
            message.visible_at = 0.0  # as if `visibility` were over
        dead.extend(box.dead_bodies())
        return len(dead) == len(POISON)

    async with running(settings(cloud, box, wait=0), taking.door(clock=ManualClock(auto=True))) as task:
        await until(lambda: len(box.messages()) == len(POISON), task)
        await until(all_dead, task)
    assert sorted(dead) == sorted(POISON)
    assert len(await taking.threads()) == 1
    told = [each.message for each in caplog.records if "redrive policy" in each.message]
    assert len(told) == len(POISON)
    assert "secret" not in caplog.text


async def test_what_is_no_document_is_a_dead_thread_and_is_acknowledged(cloud: Aws, taking: Taking) -> None:
    box = cloud.mailbox()
    box.put("large", b"x" * 1001)
    box.put("empty", b"")
    problems = {"large": "is larger than 1000 bytes", "empty": "is empty", "gone": "is not in its bucket any more"}
    for key in problems:
        box.send({"Records": [event(box, key)]})
    async with running(settings(cloud, box), taking.door()) as task:
        await until(lambda: box.messages() == [], task)
    found = {each.source.rpartition("/")[2]: each for each in await taking.threads()}
    assert {each.status for each in found.values()} == {"dead"}
    for key, problem in problems.items():
        assert problem in (found[key].error or "")


async def test_of_an_object_whose_length_is_not_said_no_more_than_the_limit_is_read(cloud: Aws, taking: Taking) -> None:
    box = cloud.mailbox()
    box.send({"Records": [event(box)]})
    with FaultyServer(["huge body"]) as storage:
        async with running(settings(cloud, box, endpoint_url=storage.url), taking.door()) as task:
            await until(lambda: box.messages() == [], task)
    [thread] = await taking.threads()
    assert "is larger than 1000 bytes" in (thread.error or "")


async def test_of_an_object_that_is_said_to_be_too_large_nothing_is_read(cloud: Aws, taking: Taking) -> None:
    box = cloud.mailbox()
    box.send({"Records": [event(box)]})
    with FaultyServer([Reply(body=b"x" * 1001, every=5.0)]) as storage:  # which takes more than an hour
        async with running(settings(cloud, box, endpoint_url=storage.url), taking.door()) as task:
            await until(lambda: box.messages() == [], task)
    [thread] = await taking.threads()
    assert "is larger than 1000 bytes" in (thread.error or "")


DOCUMENT = Reply(body=b"a document", headers={"Content-Type": "text/plain"})


def denial(code: str, status: int = 403) -> Reply:
    body = f"<Error><Code>{code}</Code><Message>secret words</Message></Error>".encode()
    return Reply(status, body=body, headers={"Content-Type": "application/xml"})


async def test_while_s3_is_away_a_message_is_kept_and_its_object_read_as_soon_as_it_is_back(
    cloud: Aws, taking: Taking, caplog: pytest.LogCaptureFixture
) -> None:
    faults: list[Behaviour] = [denial("SlowDown", 503), 500, "reset", Reply(body=b"a document", cut=5), 429] * 2
    box = cloud.mailbox()
    box.send({"Records": [event(box)]})
    deliveries: list[int] = []

    async def count() -> None:
        deliveries.extend(each.approximate_receive_count for each in box.messages())

    taking.before = count  # type: ignore[method-assign]
    with FaultyServer(faults, answer=lambda _: DOCUMENT) as storage:
        made = settings(cloud, box, wait=0, endpoint_url=storage.url)
        clock = ManualClock(auto=True)
        async with running(made, taking.door(clock=clock)) as task:
            await until(lambda: box.messages() == [], task)
        assert {2.0, 4.0, 8.0, 16.0, 32.0} <= set(clock.slept)  # the client itself makes no retries
        assert storage.requests[0].path.startswith(f"/{box.bucket}/notice.txt")  # by path, not by host
    assert deliveries == [1]
    [thread] = await taking.threads()
    assert thread.status == "queued"
    told = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(told) == len(set(told)) <= 5
    assert "secret" not in caplog.text


async def test_an_object_that_we_may_not_read_is_given_back_for_later_and_ends_in_the_dead_letters(
    cloud: Aws, taking: Taking, caplog: pytest.LogCaptureFixture
) -> None:
    box = cloud.mailbox(redrive_after=2)
    body = {"Records": [event(box)]}
    box.send(body)
    clock = ManualClock(auto=True)
    hidden: list[int] = []
    dead: list[str] = []

    def is_dead() -> bool:
        for message in box.messages():
            left = message.visible_at / 1000 - time.time()
            if 0 < left <= 60:  # of the 120 of one that is being worked on there is more left, however busy the machine
                hidden.append(30 if left <= 30 else 60)
                message.visible_at = 0.0
        dead.extend(box.dead_bodies())
        return bool(dead)

    with FaultyServer(answer=lambda _: denial("AccessDenied")) as storage:
        async with running(settings(cloud, box, wait=0, endpoint_url=storage.url), taking.door(clock=clock)) as task:
            await until(is_dead, task)
    assert [json.loads(each) for each in dead] == [body]
    assert hidden == [30, 60]
    assert await taking.threads() == []
    [told] = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    assert "s3:GetObject is denied" in told
    assert "secret" not in told


async def test_objects_that_we_may_not_read_do_not_hold_up_the_others(cloud: Aws, taking: Taking) -> None:
    box = cloud.mailbox()
    for number in range(s3.AT_ONCE * 2):
        box.send({"Records": [event(box, f"denied-{number}")]})
    box.send({"Records": [event(box, "allowed")]})

    def answer(request: Any) -> Reply:
        return denial("AccessDenied") if "denied" in request.path else DOCUMENT

    with FaultyServer(answer=answer) as storage:
        clock = ManualClock(auto=True)
        async with running(settings(cloud, box, wait=0, endpoint_url=storage.url), taking.door(clock=clock)) as task:
            await until(lambda: len(box.messages()) == s3.AT_ONCE * 2, task)
    [thread] = await taking.threads()
    assert thread.source.endswith("/allowed")
    assert {2.0**n for n in range(1, 6)} & set(clock.slept)  # after each that is denied, it waits before the next


async def test_whatever_else_ails_a_message_does_not_stop_the_others(
    cloud: Aws, taking: Taking, caplog: pytest.LogCaptureFixture
) -> None:
    box = cloud.mailbox()
    for key in ("ails", "well"):
        box.put(key)
        box.send({"Records": [event(box, key)]})

    async def fail_once() -> None:
        if taking.offered == 1:
            raise RuntimeError("secret words")

    taking.before = fail_once  # type: ignore[method-assign]
    async with running(settings(cloud, box), taking.door()) as task:
        await until(lambda: len(box.messages()) == 1 and taking.offered == 2, task)
        await until(lambda: "RuntimeError" in caplog.text, task)
    assert len(await taking.threads()) == 1
    assert "secret" not in caplog.text


async def test_no_more_than_a_few_objects_are_in_memory_while_the_queue_of_threads_is_full(
    cloud: Aws, taking: Taking
) -> None:
    box = cloud.mailbox()
    for number in range(s3.AT_ONCE + 3):
        box.put(str(number))
        box.send({"Records": [event(box, str(number))]})
    room = asyncio.Event()
    taking.before = room.wait  # type: ignore[method-assign, assignment]
    async with running(settings(cloud, box), taking.door()) as task:
        await until(lambda: taking.offered == s3.AT_ONCE, task)
        assert box.waiting() == (3, s3.AT_ONCE)  # what comes after stays with the source, for others too
        room.set()
        await until(lambda: box.messages() == [], task)
    assert len(await taking.threads()) == s3.AT_ONCE + 3


async def test_a_message_is_kept_from_others_for_as_long_as_it_is_worked_on(cloud: Aws, taking: Taking) -> None:
    box = cloud.mailbox()
    box.put("notice.txt")
    box.send({"Records": [event(box)]})
    room = asyncio.Event()
    taking.before = room.wait  # type: ignore[method-assign, assignment]
    clock = ManualClock()
    async with running(settings(cloud, box, visibility=60), taking.door(clock=clock)) as task:
        await until(lambda: taking.offered == 1, task)
        for beat in range(1, 4):
            await until(lambda beat=beat: clock.slept.count(20.0) == beat, task)  # type: ignore[misc]
            [message] = box.messages()
            message.visible_at -= 20_000.0  # a third of the time has passed
            clock.advance(20.0)
            await until(lambda: box.hidden_for() > 50, task)
        room.set()
        await until(lambda: box.messages() == [], task)


@pytest.mark.slow
async def test_a_message_that_is_worked_on_for_longer_than_its_visibility_is_delivered_once(
    cloud: Aws, taking: Taking
) -> None:
    box = cloud.mailbox()
    box.put("notice.txt")
    box.send({"Records": [event(box)]})
    room = asyncio.Event()
    taking.before = room.wait  # type: ignore[method-assign, assignment]
    async with running(settings(cloud, box, visibility=3), taking.door()) as task:
        await until(lambda: taking.offered == 1, task)
        await asyncio.sleep(8)
        assert [each.approximate_receive_count for each in box.messages()] == [1]
        room.set()
        await until(lambda: box.messages() == [], task)
    assert taking.offered == 1


async def test_what_is_worked_on_when_the_service_ends_is_given_back_at_once(cloud: Aws, taking: Taking) -> None:
    box = cloud.mailbox()
    for key in ("a", "b"):
        box.put(key)
        box.send({"Records": [event(box, key)]})
    taking.before = asyncio.Event().wait  # type: ignore[method-assign, assignment]
    async with running(settings(cloud, box), taking.door()) as task:
        await until(lambda: taking.offered == 2, task)
        assert box.waiting() == (0, 2)
    assert box.waiting() == (2, 0)


async def test_the_span_of_a_message_is_that_of_its_thread(cloud: Aws, taking: Taking) -> None:
    box = cloud.mailbox()
    box.put("notice.txt")
    box.send({"Records": [event(box)]}, traceparent=TRACE, tracestate="vendor=a")
    async with running(settings(cloud, box), taking.door()) as task:
        await until(lambda: box.messages() == [], task)
    [thread] = await taking.threads()
    origin = await taking.inbox.origin(thread.thread_id)
    assert origin is not None
    assert (origin.source, origin.traceparent, origin.tracestate) == ("s3", TRACE, "vendor=a")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"queue_url": "events"}, "queue_url of trigger 's3' is no http"),
        ({"queue_url": "https://user:secret@sqs.eu-central-1.amazonaws.com/1/q"}, "password in it"),
        ({"endpoint_url": "http://localhost:port"}, "endpoint_url of trigger 's3' is no http"),
    ],
)
def test_a_url_that_is_none_is_a_wrong_setting(wrong: dict[str, Any], message: str, cloud: Aws) -> None:
    with pytest.raises(SettingsError, match=message) as raised:
        open_trigger(settings(cloud, "http://queue", **wrong), fetch=fetching)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"region": None, "endpoint_url": None}, "no AWS region is named; set its region"),
        ({"region": "no region"}, "region"),
        ({"endpoint_url": "http://under_score:9000"}, "Invalid endpoint"),
    ],
)
async def test_what_no_client_can_be_made_with_is_a_wrong_setting(
    wrong: dict[str, Any], message: str, cloud: Aws, taking: Taking
) -> None:
    box = cloud.mailbox()
    with pytest.raises(SettingsError, match=message):
        await begun(settings(cloud, box, **wrong), taking.door())


async def test_a_profile_that_is_not_there_is_a_wrong_setting(
    cloud: Aws, taking: Taking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SettingsError, match=r"profile \(nobody\) could not be found"):
        await begun(settings(cloud, cloud.mailbox()), taking.door())


async def test_a_queue_that_is_not_there_is_a_wrong_setting(cloud: Aws, taking: Taking) -> None:
    with pytest.raises(SettingsError, match="there is no queue at its queue_url"):
        await begun(settings(cloud, f"{cloud.url}/123456789012/nowhere"), taking.door())


async def test_a_queue_that_goes_away_later_is_waited_for(cloud: Aws, taking: Taking) -> None:
    box = cloud.mailbox()
    box.send({"Event": "s3:TestEvent"})
    clock = ManualClock(auto=True)
    async with running(settings(cloud, box, wait=0), taking.door(clock=clock)) as task:
        await until(lambda: box.messages() == [], task)
        cloud.sqs.delete_queue(QueueUrl=box.url)
        await until(lambda: 60.0 in clock.slept, task)
        cloud.sqs.create_queue(QueueName=box.name)
        box.put("notice.txt")
        box.send({"Records": [event(box)]})
        await until(lambda: taking.offered == 1, task)


async def test_an_sqs_that_cannot_be_reached_is_waited_for_and_told_once(
    cloud: Aws, taking: Taking, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tidegate")
    clock = ManualClock(auto=True)
    empty = Reply(body=b"{}", headers={"Content-Type": "application/x-amz-json-1.0"})
    faults: list[Behaviour] = [503, 503, 503, "reset", "reset", "reset"]
    with FaultyServer(faults, answer=lambda _: empty) as queue:
        made = settings(cloud, f"{queue.url}/123456789012/events", wait=0)
        async with running(made, taking.door(clock=clock)) as task:
            await until(lambda: len(queue.requests) >= 8, task)
    told = [each.message for each in caplog.records if each.name.startswith("tidegate")]
    assert [each.levelname for each in caplog.records if each.name.startswith("tidegate")] == [
        "WARNING",
        "WARNING",
        "INFO",
    ]
    assert "503" in told[0]
    assert "cannot be reached" in told[1]
    assert "this is over" in told[2]


async def test_without_credentials_it_says_so_once_and_goes_on_when_there_are_some(
    cloud: Aws, taking: Taking, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    box = cloud.mailbox()
    box.put("notice.txt")
    box.send({"Records": [event(box)]})
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    clock = ManualClock(auto=True)
    async with running(settings(cloud, box, wait=0), taking.door(clock=clock)) as task:
        await until(lambda: 4.0 in clock.slept, task)
        for name, value in CREDENTIALS.items():
            monkeypatch.setenv(name, value)
        await until(lambda: box.messages() == [], task)
    [told] = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    assert "no AWS credentials were found; set AWS_ACCESS_KEY_ID" in told


async def test_credentials_that_s3_refuses_are_looked_up_anew(
    cloud: Aws, taking: Taking, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    box = cloud.mailbox()
    box.send({"Records": [event(box)]})

    def answer(request: Any) -> Reply:
        return DOCUMENT if "Credential=renewed/" in request.headers["authorization"] else denial("ExpiredToken", 400)

    def redelivered() -> bool:
        for message in box.messages():
            message.visible_at = 0.0
        return box.messages() == []

    with FaultyServer(answer=answer) as storage:
        clock = ManualClock(auto=True)
        async with running(settings(cloud, box, wait=0, endpoint_url=storage.url), taking.door(clock=clock)) as task:
            await until(lambda: len(storage.requests) == 1, task)
            monkeypatch.setenv("AWS_PROFILE", "nobody")  # AWS's files are in the middle of a change
            await until(lambda: "renew them" in caplog.text, task)
            await until(lambda: "could not be found" in caplog.text, task)
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "renewed")
            monkeypatch.delenv("AWS_PROFILE")
            await until(redelivered, task)
    [thread] = await taking.threads()
    assert thread.status == "queued"


async def test_while_nothing_comes_a_queue_that_does_not_wait_is_asked_once_a_second(
    cloud: Aws, taking: Taking
) -> None:
    clock = ManualClock()
    empty = Reply(body=b"{}", headers={"Content-Type": "application/x-amz-json-1.0"})
    with FaultyServer(answer=lambda _: empty) as queue:
        made = settings(cloud, f"{queue.url}/123456789012/events", wait=0)
        async with running(made, taking.door(clock=clock)):
            for count in range(1, 4):
                await asyncio.wait_for(clock.until_sleeping(), PATIENCE)
                assert len(queue.requests) == count
                clock.advance(1.0)
                await until(lambda count=count: len(queue.requests) == count + 1)  # type: ignore[misc]


async def test_botocore_reads_its_files_in_a_thread(
    cloud: Aws, taking: Taking, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.loaders import JSONFileLoader

    readers: set[threading.Thread] = set()
    load = JSONFileLoader.load_file

    def watched(self: Any, path: str) -> Any:
        readers.add(threading.current_thread())
        return load(self, path)

    monkeypatch.setattr(JSONFileLoader, "load_file", watched)
    s3_clients._loader.cache_clear()
    async with s3_clients.connect(settings(cloud, cloud.mailbox())):
        pass
    assert readers
    assert threading.main_thread() not in readers


@pytest.mark.parametrize(
    ("given", "variables", "expected"),
    [
        ({"region": "eu-west-1"}, {"AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-1"),
        ({}, {"AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-2"),
        ({"queue_url": "https://sqs.eu-south-1.amazonaws.com/1/q", "endpoint_url": None}, {}, "eu-south-1"),
        ({}, {}, "us-east-1"),
    ],
)
async def test_the_region_is_that_of_the_settings_or_of_aws_variables_or_of_the_queue(
    given: dict[str, Any], variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch, cloud: Aws
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    made = settings(cloud, f"{cloud.url}/1/q", **{"region": None, **given})
    async with s3_clients.connect(made) as clients:
        assert clients.s3.meta.region_name == expected


async def test_the_queue_is_asked_in_the_region_that_its_url_names(cloud: Aws) -> None:
    async with s3_clients.connect(settings(cloud, "https://sqs.eu-south-1.amazonaws.com/1/q")) as clients:
        assert (clients.s3.meta.region_name, clients.sqs.meta.region_name) == (REGION, "eu-south-1")


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [("http://minio:9000", "http://minio:9000/harbour/notice.txt"), (None, "https://harbour.s3.")],
)
async def test_buckets_are_named_in_the_path_where_the_endpoint_is_not_that_of_aws(
    endpoint: str | None, expected: str, cloud: Aws
) -> None:
    async with s3_clients.connect(settings(cloud, "http://queue/1/q", endpoint_url=endpoint)) as clients:
        at = {"Bucket": "harbour", "Key": "notice.txt"}
        assert (await clients.s3.generate_presigned_url("get_object", Params=at)).startswith(expected)


async def test_an_object_that_is_put_becomes_a_summary(cloud: Aws, tmp_path: Path) -> None:
    box = cloud.mailbox()
    box.notify()
    read = Settings.read(checkpoints=f"sqlite:///{tmp_path / 'tidegate.db'}", recogniser="rules")
    async with Pipeline.open(read) as pipeline:
        engine = InProcessEngine(pipeline)
        door = Door(engine, pipeline.inbox, max_document_bytes=read.max_document_bytes)
        worker = asyncio.create_task(engine.run_worker())
        box.put("notes/harbour report.md", Path("tests/samples/harbour-report.md").read_bytes(), "text/markdown")
        async with running(settings(cloud, box), door) as task:
            await until(lambda: box.messages() == [], task)
            [thread] = await pipeline.threads()
            assert thread.source == f"s3://{box.bucket}/notes/harbour report.md"
            await until(lambda: _has_result(pipeline, thread.thread_id), task)
        result = await pipeline.inspect(thread.thread_id)
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker
    assert result.status == "complete"
    assert result.summary


async def _has_result(pipeline: Pipeline, thread_id: str) -> bool:
    [thread] = [each for each in await pipeline.threads() if each.thread_id == thread_id]
    return thread.status in ("complete", "degraded", "failed", "dead")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_consumer_killed_around_the_commit_leaves_one_thread_and_no_message(
    moment: str, cloud: Aws, taking: Taking, tmp_path: Path
) -> None:
    box = cloud.mailbox()
    box.put("notice.txt")
    box.send({"Records": [event(box)]})
    command = [sys.executable, "-m", "tests.e2e.s3_crash", cloud.url, box.url, str(tmp_path / "store.db"), moment]
    process = await asyncio.create_subprocess_exec(*command)
    assert await asyncio.wait_for(process.wait(), PATIENCE) == -9
    assert len(box.messages()) == 1  # it is not deleted
    assert len(await taking.threads()) == (moment == "after")
    async with running(settings(cloud, box, visibility=3), taking.door(clock=SystemClock())) as task:
        await until(lambda: box.messages() == [], task)
    assert taking.offered == (moment == "before")
    [thread] = await taking.threads()
    assert thread.status == "queued"
