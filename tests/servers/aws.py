"""S3 and SQS on loopback, served by moto from a thread: `python -m tests.servers.aws` runs them until interrupted."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

REGION = "eu-central-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
"""Environment variables under which the server lets everybody in; nobody looks for a role of this machine."""

_numbers = itertools.count(1)


class Aws:
    """A server, and blocking clients of it."""

    def __init__(self, url: str) -> None:
        import boto3

        self.url = url
        session = boto3.Session("test", "test", region_name=REGION)
        self.s3: Any = session.client("s3", endpoint_url=url)
        self.sqs: Any = session.client("sqs", endpoint_url=url)

    def mailbox(self, *, visibility: int = 30, redrive_after: int | None = None) -> Mailbox:
        """Make a bucket, and a queue for it."""
        return Mailbox(self, next(_numbers), visibility, redrive_after)


class Mailbox:
    """A bucket, a queue, and the dead letters of that, with names of their own."""

    def __init__(self, aws: Aws, number: int, visibility: int, redrive_after: int | None) -> None:
        self._aws = aws
        self.bucket = f"documents-{number}"
        aws.s3.create_bucket(Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        attributes = {"VisibilityTimeout": str(visibility)}
        self.dead_letters = ""
        if redrive_after is not None:
            self.dead_letters = aws.sqs.create_queue(QueueName=f"dead-{number}")["QueueUrl"]
            policy = {"deadLetterTargetArn": _arn(f"dead-{number}"), "maxReceiveCount": redrive_after}
            attributes["RedrivePolicy"] = json.dumps(policy)
        self.name = f"events-{number}"
        self.url: str = aws.sqs.create_queue(QueueName=self.name, Attributes=attributes)["QueueUrl"]

    def notify(self, *events: str) -> None:
        """Have the bucket notify the queue of these events, of all creations by default; a test event is sent."""
        configuration = {"QueueArn": _arn(self.name), "Events": list(events) or ["s3:ObjectCreated:*"]}
        self._aws.s3.put_bucket_notification_configuration(
            Bucket=self.bucket, NotificationConfiguration={"QueueConfigurations": [configuration]}
        )

    def keep_versions(self) -> None:
        self._aws.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})

    def put(self, key: str, data: bytes = b"a document", media_type: str = "text/plain") -> str | None:
        """Put an object; return its version."""
        answer = self._aws.s3.put_object(Bucket=self.bucket, Key=key, Body=data, ContentType=media_type)
        version: str | None = answer.get("VersionId")
        return version

    def remove(self, key: str) -> None:
        self._aws.s3.delete_object(Bucket=self.bucket, Key=key)

    def send(self, body: object, **attributes: str) -> None:
        """Put a message in the queue, with message attributes."""
        self._aws.sqs.send_message(
            QueueUrl=self.url,
            MessageBody=body if isinstance(body, str) else json.dumps(body),
            MessageAttributes={
                name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
            },
        )

    def dead_bodies(self) -> list[str]:
        """Take all messages out of the dead letters."""
        bodies: list[str] = []
        while found := self._aws.sqs.receive_message(QueueUrl=self.dead_letters, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for message in found:
                bodies.append(message["Body"])
                self._aws.sqs.delete_message(QueueUrl=self.dead_letters, ReceiptHandle=message["ReceiptHandle"])
        return bodies

    def waiting(self) -> tuple[int, int]:
        """Return how many messages can be received, and how many were and are not deleted."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._aws.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    def messages(self) -> list[Any]:
        """Return moto's own messages, deleted ones not: `approximate_receive_count`, `visible_at` in milliseconds."""
        from moto.core.models import DEFAULT_ACCOUNT_ID
        from moto.sqs.models import sqs_backends

        return list(sqs_backends[DEFAULT_ACCOUNT_ID][REGION].queues[self.name]._messages)

    def hidden_for(self) -> float:
        """Return for how many seconds the one message that there is will not be seen."""
        [message] = self.messages()
        return float(message.visible_at) / 1000 - time.time()


def _arn(queue: str) -> str:
    return f"arn:aws:sqs:{REGION}:123456789012:{queue}"


@contextmanager
def _one_deletion_at_a_time() -> Iterator[None]:
    """Mend moto 5.2.5, which deletes by making a queue's list anew: what another thread deletes meanwhile is back."""
    from moto.sqs.models import Queue

    delete = Queue.delete_message

    def locked(self: Queue, receipt_handle: str) -> None:
        with self._messages_lock:  # which sending takes too
            delete(self, receipt_handle)

    setattr(Queue, "delete_message", locked)  # noqa: B010 - a stand-in has another type
    try:
        yield
    finally:
        setattr(Queue, "delete_message", delete)  # noqa: B010


@contextmanager
def aws(port: int = 0) -> Iterator[Aws]:
    """Serve on a port of 127.0.0.1, a free one by default."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    with _one_deletion_at_a_time():
        server.start()
        try:
            host, free = server.get_host_and_port()
            yield Aws(f"http://{host}:{free}")
        finally:
            server.stop()


if __name__ == "__main__":
    import threading

    with aws(5000) as running:
        print(running.url, flush=True)
        threading.Event().wait()
