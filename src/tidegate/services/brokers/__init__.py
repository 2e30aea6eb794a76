"""Message brokers: where one is, and what its failures mean."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

from tidegate.errors import MissingExtra, SettingsError

_MODULES: Final = {
    "amqp": "rabbitmq",
    "amqps": "rabbitmq",
    "nats": "nats",
    "tls": "nats",
    "redis": "redis",
    "rediss": "redis",
}
"""By scheme of the URL: the broker, and the module of this package that knows it."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker is: `broker` is its kind, and `url` has credentials in it, which `shown` has not."""

    broker: str
    url: str = field(repr=False)
    shown: str


class Publisher(Protocol):
    """An open connection that messages are sent over."""

    @property
    def usable(self) -> bool:
        """Whether it was not lost."""
        ...

    async def publish(self, queue: str, body: bytes, *, message_id: str, headers: Mapping[str, str]) -> None:
        """Send a message; once this returns, the broker has it and keeps it.

        Raises:
            ServiceError: it does not.
        """
        ...

    async def aclose(self) -> None:
        """Close the connection."""
        ...


def address(url: str, what: str) -> Address:
    """Return where a broker is; `what` names the setting for errors.

    Raises:
        SettingsError: it is no URL of a broker that is known.
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
        host = parts.hostname
    except ValueError:
        raise SettingsError(f"the url of {what} is no valid URL; check its port and its host") from None
    if parts.scheme not in _MODULES or not host:
        schemes = ", ".join(f"{scheme}://" for scheme in _MODULES)
        raise SettingsError(f"the url of {what} is none of a broker; it begins with one of {schemes}, and a host")
    shown = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{parts.path}"
    return Address(_MODULES[parts.scheme], url, shown)


async def open_publisher(where: Address, name: str) -> Publisher:
    """Connect to a broker to send messages; `name` is the service in errors.

    Raises:
        MissingExtra: the broker's client is not installed.
        ServiceError: it cannot be reached, or refuses.
    """
    publisher = client(where, name).Publisher
    return cast("Publisher", await publisher.open(where, name))


def client(where: Address, name: str) -> ModuleType:
    """Import the module that knows a broker.

    Raises:
        MissingExtra: the broker's client is not installed.
    """
    try:
        return importlib.import_module(f"tidegate.services.brokers.{where.broker}")
    except ImportError as error:
        raise MissingExtra(f"queue {name!r}", "queue") from error
