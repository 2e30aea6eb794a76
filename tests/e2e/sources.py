"""All the ways into a service that there are on this machine, each with what sends by it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aio_pika
import nats
from aiobotocore.session import get_session
from moto.server import ThreadedMotoServer
from nats.js.errors import NoStreamResponseError
from redis.asyncio import Redis

from tests.e2e.unattended import SECRET, Send, Senders, Service, document

AWS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "eu-north-1"}
"""What any client of the S3 on loopback needs to have set."""

PERIOD = 5
"""Seconds from one time of the schedule to the next."""


@dataclass(frozen=True, slots=True)
class Source:
    """A trigger's settings, None for the HTTP interface, and what makes its sender once there is a service: None for a
    schedule, whose events come by themselves.
    """

    name: str
    settings: Mapping[str, object] | None
    sender: Callable[[Service], Send] | None


@asynccontextmanager
async def open_sources(folder: Path) -> AsyncIterator[list[Source]]:
    """Open each source; of brokers those that the environment names."""
    (folder / "inbox").mkdir()
    (folder / "tide-table.txt").write_text(document("Tidewick"))
    async with AsyncExitStack() as stack:
        senders: dict[Service, Senders] = {}

        def of(service: Service) -> Senders:
            if service not in senders:
                senders[service] = Senders(service)
                stack.push_async_callback(senders[service].aclose)
            return senders[service]

        watched = {"kind": "folder", "path": "inbox", "settle": 0.3, "scan_every": 2.0}
        schedule = {"schedule": f"*/{PERIOD} * * * * *", "document": "tide-table.txt", "missed": "once"}
        sources = [
            Source("cron", {"kind": "cron", **schedule}, None),
            Source("folder", watched, lambda service: of(service).file),
            Source("webhook", {"kind": "webhook", "secrets": [SECRET]}, lambda service: of(service).webhook),
            Source("api", None, lambda service: of(service).api),
            await stack.enter_async_context(_s3()),
        ]
        for variable, opened in _BROKERS.items():
            if url := os.environ.get(variable):
                sources.append(await stack.enter_async_context(opened(url)))
        yield sources


@asynccontextmanager
async def _s3() -> AsyncIterator[Source]:
    """A bucket of moto's on loopback, and its notifications as AWS writes them."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it tells of every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    await asyncio.to_thread(server.start)
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        where = {
            "endpoint_url": endpoint,
            "region_name": AWS["AWS_DEFAULT_REGION"],
            "aws_access_key_id": AWS["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": AWS["AWS_SECRET_ACCESS_KEY"],
        }
        session: Any = get_session()
        async with session.create_client("s3", **where) as s3, session.create_client("sqs", **where) as sqs:
            place = {"LocationConstraint": where["region_name"]}
            await s3.create_bucket(Bucket="documents", CreateBucketConfiguration=place)
            queue = (await sqs.create_queue(QueueName="created"))["QueueUrl"]

            async def send(event: str, text: str) -> None:
                key = f"{event}.txt"
                stored = await s3.put_object(Bucket="documents", Key=key, Body=text.encode(), ContentType="text/plain")
                body = json.dumps({"Records": [_record(key, stored["ETag"].strip('"'), len(text))]})
                await sqs.send_message(QueueUrl=queue, MessageBody=body)

            settings = {"kind": "s3", "queue_url": queue, "endpoint_url": endpoint, "wait": 1, "visibility": 20.0}
            yield Source("s3", settings, lambda _: send)
    finally:
        await asyncio.to_thread(server.stop)


def _record(key: str, etag: str, size: int) -> dict[str, Any]:
    stored = {"key": key, "size": size, "eTag": etag, "sequencer": "0055AED6DCD90281E5"}
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "documents"}, "object": stored},
    }


@asynccontextmanager
async def _rabbitmq(url: str) -> AsyncIterator[Source]:
    name = _own_name()
    connection = await aio_pika.connect_robust(url)
    async with connection, connection.channel(on_return_raises=True) as channel:

        async def send(event: str, text: str) -> None:
            message = aio_pika.Message(
                _message(event, text), message_id=event, delivery_mode=aio_pika.DeliveryMode.PERSISTENT
            )
            publish = partial(channel.default_exchange.publish, message, routing_key=name, mandatory=True)
            await _until_there(publish, aio_pika.exceptions.DeliveryError)

        yield Source("rabbitmq", {"kind": "queue", "name": "rabbitmq", "url": url, "queue": name}, lambda _: send)
        for each in (name, f"{name}.dead"):
            await channel.queue_delete(each)


@asynccontextmanager
async def _nats(url: str) -> AsyncIterator[Source]:
    name = _own_name()
    client = await nats.connect(url)
    stream = client.jetstream()

    async def send(event: str, text: str) -> None:
        await _until_there(partial(stream.publish, name, _message(event, text)), NoStreamResponseError)

    try:
        yield Source("nats", {"kind": "queue", "name": "nats", "url": url, "queue": name}, lambda _: send)
    finally:
        for info in await stream.streams_info():
            if any(subject.startswith(name) for subject in info.config.subjects or []):
                await stream.delete_stream(str(info.config.name))
        await client.close()


@asynccontextmanager
async def _redis(url: str) -> AsyncIterator[Source]:
    name = _own_name()
    async with Redis.from_url(url) as client:

        async def send(event: str, text: str) -> None:
            await client.xadd(name, {"data": _message(event, text)})

        yield Source("redis", {"kind": "queue", "name": "redis", "url": url, "queue": name}, lambda _: send)
        await client.delete(name, f"{name}.dead")


_BROKERS = {"TIDEGATE_TEST_RABBITMQ": _rabbitmq, "TIDEGATE_TEST_NATS": _nats, "TIDEGATE_TEST_REDIS": _redis}


async def _until_there(publish: Callable[[], Awaitable[object]], refused: type[Exception]) -> None:
    """Publish once the service has made what it reads: it is ready before it has reached its brokers."""
    while True:
        try:
            await publish()
        except refused:
            await asyncio.sleep(0.1)
        else:
            return


def _own_name() -> str:
    return f"tidegate-test-{uuid.uuid4().hex[:8]}"


def _message(event: str, text: str) -> bytes:
    return json.dumps({"id": event, "text": text, "name": f"{event}.txt"}).encode()
