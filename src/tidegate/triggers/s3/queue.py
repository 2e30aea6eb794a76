"""The SQS queue that a bucket notifies: messages are received, kept, given back and deleted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.triggers.s3.events import TRACEPARENT, TRACESTATE, XRAY
from tidegate.triggers.s3.failures import judged

MOST = 10
"""Messages that SQS hands out at once at most."""

_LONGEST = 43_200  # seconds that SQS keeps a message from others: 12 hours


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery of a message; `content` is as SQS gave it. `deliveries` counts this one, too."""

    id: str
    receipt: str
    content: Mapping[str, Any]
    deliveries: int


class MessageQueue:
    """One queue. Every call raises `ServiceError`, which says what to do."""

    def __init__(self, client: Any, url: str, *, wait: int, visibility: float) -> None:
        """Read this queue: a poll takes `wait` seconds, a message is ours for `visibility` seconds."""
        self._client = client
        self._url = url
        self._wait = wait
        self._visibility = visibility

    async def receive(self, most: int) -> list[Message]:
        """Return up to `most` messages, as soon as there is one; none, if there was none in the time of a poll."""
        with judged("sqs", right="sqs:ReceiveMessage", on="the queue"):
            answer = await self._client.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=min(most, MOST),
                WaitTimeSeconds=self._wait,
                VisibilityTimeout=_whole(self._visibility),
                MessageSystemAttributeNames=["ApproximateReceiveCount", XRAY],
                MessageAttributeNames=[TRACEPARENT, TRACESTATE],
            )
        return [_message(each) for each in answer.get("Messages") or ()]

    async def keep(self, message: Message) -> None:
        """Keep a message from others for as long again as when it was received."""
        await self.hide(message, self._visibility)

    async def hide(self, message: Message, seconds: float) -> None:
        """Let others have a message in so many seconds; 0 gives it back at once."""
        with judged("sqs", right="sqs:ChangeMessageVisibility", on="the queue"):
            await self._client.change_message_visibility(
                QueueUrl=self._url, ReceiptHandle=message.receipt, VisibilityTimeout=_whole(seconds)
            )

    async def delete(self, message: Message) -> None:
        """Acknowledge a message."""
        with judged("sqs", right="sqs:DeleteMessage", on="the queue"):
            await self._client.delete_message(QueueUrl=self._url, ReceiptHandle=message.receipt)


def _message(content: Mapping[str, Any]) -> Message:
    count = str((content.get("Attributes") or {}).get("ApproximateReceiveCount", ""))
    deliveries = int(count) if count.isdecimal() else 1
    return Message(str(content.get("MessageId", "")), str(content.get("ReceiptHandle", "")), content, deliveries)


def _whole(seconds: float) -> int:
    return min(math.ceil(seconds), _LONGEST)
