"""The settings of an S3 trigger -> clients of S3 and SQS."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import exceptions as botocore

from tidegate.errors import SettingsError
from tidegate.settings.service import S3Trigger as Settings
from tidegate.triggers.s3_failures import judged

_REGION = re.compile(r"(?:^|[./])(?:sqs|sqs-fips)\.([a-z]{2,}(?:-[a-z]+)+-\d+)\.")
_ANY_REGION = "us-east-1"  # what MinIO and others that have none expect in a signature
_MORE = 15.0  # seconds that a long poll may take beyond its own

_WRONG = (
    botocore.ProfileNotFound,
    botocore.ConfigParseError,
    botocore.ConfigNotFound,
    botocore.InvalidConfigError,
    botocore.InvalidRegionError,
    ValueError,  # an endpoint of which botocore says that it is none, as one with an underscore in its name
)
"""What nobody mends but who changes AWS's variables or files; of a region, our setting."""


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients; they make no attempt but the one that they are asked for."""

    s3: Any
    sqs: Any


def check(settings: Settings) -> None:
    """Check the URLs.

    Raises:
        SettingsError: one is none.
    """
    for name, url in (("queue_url", settings.queue_url), ("endpoint_url", settings.endpoint_url)):
        if url is None:
            continue
        if not _is_plain(url):
            raise SettingsError(
                f"{name} of trigger {settings.name!r} is no http or https URL, or has a password in it; set it as "
                "https://sqs.eu-central-1.amazonaws.com/123456789012/NAME for a queue, http://HOST:PORT for an endpoint"
            )


def _is_plain(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        )
    except ValueError:  # a port that is no number
        return False


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Clients]:
    """Open the clients, with the credentials that AWS's own variables, files and services name now.

    Raises:
        SettingsError: no region is named, or AWS's configuration cannot be read.
        CredentialsRefused: credentials are named, and cannot be had.
    """
    async with AsyncExitStack() as stack:
        with judged("aws", right="a client", on="this machine"):
            # The first clients of a session read AWS's files, and those of the process 2 MB of JSON: 270 ms, where the
            # second ones of a session take 10 ms.
            session, options = await asyncio.to_thread(_begin, settings)
            clients = Clients(
                **{
                    service: await stack.enter_async_context(session.create_client(service, **of_service))
                    for service, of_service in options.items()
                }
            )
        yield clients


@functools.cache
def _loader() -> Any:
    """Return what reads botocore's files, and remembers them; nothing of the user's is in them."""
    return AioSession().get_component("data_loader")


def _begin(settings: Settings) -> tuple[AioSession, dict[str, dict[str, Any]]]:
    async def once() -> None:
        for service, of_service in options.items():
            async with session.create_client(service, **of_service):
                pass

    try:
        session = AioSession()
        session.register_component("data_loader", _loader())
        options = _options(settings, session)
        asyncio.run(once())
    except _WRONG as error:
        what = str(error) if isinstance(error, botocore.ProfileNotFound | ValueError) else ""
        raise SettingsError(
            f"trigger {settings.name!r}: AWS's configuration cannot be used ({what or type(error).__name__}); mend "
            "it: AWS_PROFILE, AWS_CONFIG_FILE, or the trigger's region and URLs"
        ) from error
    return session, options


def _options(settings: Settings, session: AioSession) -> dict[str, dict[str, Any]]:
    queue = urlsplit(settings.queue_url)
    found = _REGION.search(queue.hostname or "")
    of_queue = found[1] if found else None
    region = settings.region or session.get_config_variable("region") or of_queue
    if region is None and settings.endpoint_url is None:
        raise SettingsError(
            f"trigger {settings.name!r}: no AWS region is named; set its region, or AWS_REGION, as eu-central-1"
        )
    region = region or _ANY_REGION
    once = {"retries": {"total_max_attempts": 1, "mode": "standard"}, "connect_timeout": 10.0}  # retries are ours
    path = {} if settings.endpoint_url is None else {"s3": {"addressing_style": "path"}}
    return {
        "s3": {
            "region_name": region,
            "endpoint_url": settings.endpoint_url,
            "config": AioConfig(**once, read_timeout=60.0, **path),
        },
        "sqs": {
            "region_name": of_queue or region,
            "endpoint_url": f"{queue.scheme}://{queue.netloc}",
            "config": AioConfig(**once, read_timeout=settings.wait + _MORE),
        },
    }
