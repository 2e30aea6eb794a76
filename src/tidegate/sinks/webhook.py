"""A URL to which results are sent as CloudEvents, signed as Standard Webhooks."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tidegate.errors import MissingExtra, NotFound, Permanent, Transient
from tidegate.services import http
from tidegate.services.signatures import key_of
from tidegate.settings.service import WebhookSink as Settings
from tidegate.sinks.events import CONTENT_TYPE, result_event, structured
from tidegate.store.clock import Clock, SystemClock
from tidegate.store.outbox import Delivery

if TYPE_CHECKING:
    from standardwebhooks import Webhook

_SECONDS = 30.0
_LARGEST_ANSWER = 64 * 1024


class WebhookSink:
    """Posts results; each is there once the receiver answered with 2xx."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        """Name the URL, which is not asked before the first delivery.

        Raises:
            SettingsError: the secret is none.
            MissingExtra: the package that signs is not installed.
        """
        self._settings = settings
        self._clock = clock or SystemClock()
        self._signer = _signer(settings)
        self._clients = http.Clients(timeout=_SECONDS, connections=2)
        self._classify = http.classify(settings.name, self._clock)

    @property
    def name(self) -> str:
        """See `Sink.name`."""
        return self._settings.name

    async def deliver(self, delivery: Delivery) -> None:
        """See `Sink.deliver`. The message's `webhook-id` is the delivery's, however often it is sent."""
        body = await asyncio.to_thread(structured, result_event(delivery, self._clock))
        headers = {"Content-Type": CONTENT_TYPE, **await asyncio.to_thread(self._signed, delivery.id, body)}
        try:
            async with self._clients.lent() as client:
                request = client.build_request("POST", self._settings.url, content=body, headers=headers)
                await http.exchange(client, request, max_bytes=_LARGEST_ANSWER, attempt=delivery.attempts, traced=True)
        except http.BodyError:
            return  # it was answered with 2xx, and what else it says is of no interest
        except Exception as error:
            failure = self._classify(error)
            if failure is None:
                raise
            if isinstance(error, http.StatusError) and error.status == 410:  # Standard Webhooks: send no more
                failure = Permanent(self.name, "answered 410, so it wants no more; take the sink out of the settings")
            elif isinstance(failure, NotFound):  # a receiver that is being deployed says so, too
                failure = Transient(self.name, "answered 404; check the sink's url")
            raise failure from error

    def _signed(self, message_id: str, body: bytes) -> dict[str, str]:
        at = int(self._clock.now())
        headers = {"webhook-id": message_id, "webhook-timestamp": str(at)}
        if self._signer is not None:
            moment = datetime.fromtimestamp(at, UTC)
            headers["webhook-signature"] = self._signer.sign(message_id, moment, body.decode())
        return headers

    async def aclose(self) -> None:
        """See `Sink.aclose`."""
        await self._clients.aclose()


def _signer(settings: Settings) -> Webhook | None:
    if settings.secret is None:
        return None
    try:
        from standardwebhooks import Webhook
    except ImportError as error:
        raise MissingExtra(f"sink {settings.name!r}", "serve") from error
    return Webhook(key_of(settings.secret.get_secret_value(), f"sink {settings.name!r}"))
