"""The settings of `tidegate serve`: what starts threads, where results go, and how many run. Durations are seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, SecretStr, model_validator

from tidegate.settings.section import Section

MINUTE = 60.0
HOUR = 3600.0
DAY = 86400.0


class ServeSettings(Section):
    """The service that runs unattended."""

    host: str = Field(default="127.0.0.1", description="address to listen on; any but a loopback one needs a token")
    port: int = Field(default=8321, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    tokens: tuple[SecretStr, ...] = Field(default=(), description="bearer tokens of those who may use /v1")
    tokens_file: str | None = Field(
        default=None, description="file with a bearer token a line, or its SHA-256 as sha256:HEX"
    )
    concurrency: int = Field(default=4, ge=1, description="threads that are run at once")
    max_queued: int = Field(
        default=1000, ge=1, description="threads that may wait to be begun; more events are not taken in"
    )
    max_attempts: int = Field(
        default=5, ge=1, description="executions that end at the same step before a thread is given up"
    )
    retry_initial: float = Field(
        default=10.0, ge=0, description="seconds before a failed thread is tried again, doubled each time"
    )
    retry_max: float = Field(default=1 * HOUR, ge=0, description="seconds before it is tried again at most")
    grace: float = Field(default=20.0, ge=0, description="seconds that running steps get to end, at SIGTERM")
    max_deliveries: int = Field(default=20, ge=1, description="deliveries of a result to a sink before it is given up")
    keep_finished: float | None = Field(
        default=None,
        ge=1 * DAY,
        description="seconds after which a thread that finished is forgotten, and its event with it; never by default",
    )
    allow_networks: tuple[str, ...] = Field(
        default=(), description="private networks from which URLs may be fetched, as 10.1.0.0/16; none by default"
    )


class Named(Section):
    """A table of which there may be several, told apart by their names."""

    name: str = Field(
        default="",
        max_length=100,
        pattern=r"^[\w.-]*$",
        description="tells its events from those of others; the kind by default; another name makes old events new",
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: object) -> object:
        return {"name": values.get("kind", ""), **values} if isinstance(values, dict) else values


class FolderTrigger(Named):
    """A folder: each new or changed file in it is a document."""

    kind: Literal["folder"]
    path: str = Field(description="folder: the folder")
    recursive: bool = Field(default=True, description="folder: its subfolders too")
    include: tuple[str, ...] = Field(default=("*",), description="folder: names of files that count, as *.pdf")
    settle: float = Field(default=2.0, gt=0, description="folder: seconds for which a file must not have changed")
    scan_every: float = Field(
        default=1 * MINUTE, gt=0, description="folder: seconds between two looks at all of it, for what was not told"
    )
    done: str | None = Field(default=None, description="folder: where files are moved when their result is there")
    failed: str | None = Field(default=None, description="folder: where files are moved that were given up")


class S3Trigger(Named):
    """A bucket whose event notifications go to an SQS queue: each object that is created is a document."""

    kind: Literal["s3"]
    queue_url: str = Field(description="s3: the SQS queue that the bucket notifies")
    endpoint_url: str | None = Field(
        default=None, description="s3: an S3 endpoint that is not AWS's; where SQS is, queue_url says"
    )
    region: str | None = Field(default=None, description="s3: the region; by default as AWS's own variables say")
    wait: int = Field(default=20, ge=0, le=20, description="s3: seconds of a long poll")
    visibility: float = Field(
        default=2 * MINUTE,
        ge=3,
        le=12 * HOUR,
        description="s3: seconds for which a message is ours; extended while it is worked on",
    )


class WebhookTrigger(Named):
    """A path of the HTTP interface that takes documents, signed as Standard Webhooks."""

    kind: Literal["webhook"]
    path: str = Field(default="", description="webhook: its path; /hooks/NAME by default", pattern=r"^(/[\w.~/-]*)?$")
    secrets: tuple[SecretStr, ...] = Field(
        default=(), description="webhook: secrets as whsec_…; a message signed with any of them counts"
    )
    unsigned: bool = Field(default=False, description="webhook: take unsigned messages, from this machine alone")

    @model_validator(mode="after")
    def _is_signed(self) -> WebhookTrigger:
        if not self.secrets and not self.unsigned:
            raise ValueError("has no secrets; set some, or unsigned = true to take what anybody on this machine sends")
        return self


class CronTrigger(Named):
    """A schedule: at each time that it names, the document is read and run."""

    kind: Literal["cron"]
    schedule: str = Field(description="cron: when, as '0 6 * * MON-FRI'")
    document: str = Field(description="cron: the path or URL of the document")
    timezone: str = Field(default="UTC", description="cron: the time zone of the schedule, as Europe/Berlin")
    jitter: float = Field(default=0.0, ge=0, description="cron: seconds by which it may be late, the same each time")
    missed: Literal["skip", "once"] = Field(
        default="skip", description="cron: what to do about times that passed while no service ran"
    )


class QueueTrigger(Named):
    """A queue of a message broker: each message is a document."""

    kind: Literal["queue"]
    url: SecretStr = Field(description="queue: amqp://… (RabbitMQ), nats://… (JetStream) or redis://… (Streams)")
    queue: str = Field(min_length=1, description="queue: the queue, the subject or the stream")
    group: str = Field(default="tidegate", description="queue: NATS and Redis: consumers that share the messages")
    max_deliveries: int = Field(
        default=5, ge=1, description="queue: deliveries of a message before it goes to the dead letters"
    )
    visibility: float = Field(
        default=1 * MINUTE,
        ge=1,
        description="queue: NATS and Redis: seconds after which a message of a killed process is delivered again",
    )


class _Sink(Named):
    name: str = Field(
        default="",
        max_length=100,
        pattern=r"^[\w.-]*$",
        description="tells its deliveries from those of others; the kind by default",
    )
    triggers: tuple[str, ...] = Field(default=(), description="names of the triggers whose results go there; all")


class FileSink(_Sink):
    """Files: NAME.summary.md and NAME.summary.json of each document."""

    kind: Literal["file"]
    path: str | None = Field(default=None, description="file: the folder; beside the document without one")
    formats: tuple[Literal["markdown", "json"], ...] = Field(
        default=("markdown", "json"), min_length=1, description="file: what is written"
    )


class WebhookSink(_Sink):
    """A URL to which results are sent as CloudEvents, signed as Standard Webhooks."""

    kind: Literal["webhook"]
    url: str = Field(description="webhook: the URL", pattern=r"^https?://")
    secret: SecretStr | None = Field(default=None, description="webhook: signs, as whsec_…")


class QueueSink(_Sink):
    """A queue of a message broker to which results are sent as CloudEvents."""

    kind: Literal["queue"]
    url: SecretStr = Field(description="queue: amqp://… (RabbitMQ), nats://… (JetStream) or redis://… (Streams)")
    queue: str = Field(min_length=1, description="queue: the queue, the subject or the stream")


Trigger: TypeAlias = Annotated[
    FolderTrigger | S3Trigger | WebhookTrigger | CronTrigger | QueueTrigger, Field(discriminator="kind")
]
Sink: TypeAlias = Annotated[FileSink | WebhookSink | QueueSink, Field(discriminator="kind")]


def check(triggers: Sequence[Trigger], sinks: Sequence[Sink]) -> None:
    """Check what the triggers and the sinks have to do with each other.

    Raises:
        ValueError: two have one name, or a sink names a trigger that there is not, or cannot take its results.
    """
    for what, names in (("triggers", [each.name for each in triggers]), ("sinks", [each.name for each in sinks])):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"two {what} are named {twice[0]!r}; give each a name of its own")
    kinds = {each.name: each.kind for each in triggers}
    if "api" in kinds:  # its events and those of the HTTP interface would be told apart by their IDs alone
        raise ValueError("a trigger is named 'api', as what comes over the HTTP interface is; give it another name")
    for sink in sinks:
        for name in sink.triggers:
            if name not in kinds:
                known = f"name one of {', '.join(sorted(kinds))}" if kinds else "there is none"
                raise ValueError(
                    f"sink {sink.name!r} takes the results of trigger {name!r}, which is not there; {known}"
                )
        if sink.kind == "file" and sink.path is None:
            taken = {kinds[name] for name in sink.triggers or kinds}
            if taken != {"folder"}:
                raise ValueError(
                    f"sink {sink.name!r} has no path, so it writes beside files, and takes the results of other "
                    "triggers than folders; set its path, or its triggers"
                )
