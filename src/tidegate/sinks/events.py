"""A result that is to be delivered -> a CloudEvent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from tidegate.store.clock import Clock
from tidegate.store.outbox import Delivery

TYPE: Final = "io.tidegate.result.v1"
"""The type of the events; a result of another shape gets another one."""

SOURCE: Final = "/tidegate"

CONTENT_TYPE: Final = JSONFormat.CONTENT_TYPE
"""What says that a message is an event, structured as JSON."""


def result_event(delivery: Delivery, clock: Clock) -> CloudEvent:
    """Return the event of CloudEvents 1.0 that says that a thread published a revision.

    Its `id` is the same however often it is delivered, its `subject` the thread, its `data` `Result.to_dict()`, and its
    `time` that of this delivery.
    """
    return CloudEvent(
        {
            "specversion": "1.0",
            "type": TYPE,
            "source": SOURCE,
            "id": delivery.id,
            "subject": delivery.thread_id,
            "time": datetime.fromtimestamp(clock.now(), UTC),
            "datacontenttype": "application/json",
        },
        dict(delivery.result),
    )


def structured(event: CloudEvent) -> bytes:
    """Return an event as JSON, attributes and data; its type is `CONTENT_TYPE`."""
    return JSONFormat().write(event)
