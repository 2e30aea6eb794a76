"""The settings, read once, at the door: options, then TIDEGATE_* variables, then tidegate.toml, then defaults."""

from __future__ import annotations

import logging
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias, TypedDict, get_args

from pydantic import BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import (
    SettingsError as _SourceError,
)

from tidegate.errors import SettingsError
from tidegate.settings.complaints import Wrong, complaint, holds
from tidegate.settings.section import Section
from tidegate.settings.service import Named, ServeSettings, Sink, Trigger, check

Policy: TypeAlias = Literal["degrade", "wait", "fail"]
_log = logging.getLogger(__name__)
MIB = 1024 * 1024
DAY = 86400.0
_SECRET_NAME = re.compile(r"(?:^|[_-])(?:key|token|secret|password|authorization)$|apikey", re.IGNORECASE)
_OF_COMMANDS = frozenset({"LOG_FORMAT"})  # read before there are settings
_USERINFO = re.compile(r"://[^/@\s]+@")


class ServiceSettings(Section):
    """How calls to one service are guarded. Durations are in seconds."""

    when_open: Policy = Field(default="degrade", description="while the circuit is open: degrade, wait or fail")
    concurrency: int = Field(default=8, ge=1, description="calls in flight at most")
    rate: float | None = Field(
        default=None,
        ge=1e-6,
        le=1e6,
        description="requests a second at most, of all processes that share the checkpoints",
    )
    burst: int = Field(
        default=1, ge=1, le=1_000_000, description="requests at once after a quiet time, where a rate is set"
    )
    attempts: int = Field(default=4, ge=1, description="requests a call may make, the first included")
    retry_ratio: float = Field(
        default=0.2, ge=0, description="retries for each call of a process at most, beside 100 a minute"
    )
    attempt_timeout: float = Field(default=10.0, gt=0, description="seconds one request may take")
    budget: float = Field(
        default=120.0,
        gt=0,
        description="seconds one call may take, retries and pauses included; no less than attempt_timeout",
    )
    backoff_initial: float = Field(
        default=0.5, ge=0, description="seconds before the first retry, doubled for each further one"
    )
    backoff_max: float = Field(default=30.0, ge=0, description="seconds between two attempts at most")
    failure_threshold: int = Field(default=3, ge=1, description="consecutive failures that open the circuit")
    reset_timeout: float = Field(default=30.0, gt=0, description="seconds until an open circuit lets one probe through")
    failure_rate: float | None = Field(
        default=None, gt=0, le=1, description="share of failed calls that opens the circuit too, as 0.5; off by default"
    )
    failure_rate_calls: int = Field(default=100, ge=1, description="failure_rate: of so many last calls")
    failure_rate_seconds: float | None = Field(
        default=None, gt=0, description="failure_rate: older calls do not count; by default they do"
    )
    failure_rate_minimum: int = Field(default=10, ge=1, description="failure_rate: calls before it is judged")

    @model_validator(mode="after")
    def _has_time_for_an_attempt(self) -> Self:
        if self.budget < self.attempt_timeout:
            raise ValueError(
                f"budget ({self.budget:g} s) is shorter than attempt_timeout ({self.attempt_timeout:g} s), so that no "
                "request could take as long as it may; raise the one or lower the other"
            )
        return self

    @model_validator(mode="after")
    def _can_be_judged(self) -> Self:
        if self.failure_rate is not None and self.failure_rate_minimum > self.failure_rate_calls:
            raise ValueError("failure_rate_minimum is larger than failure_rate_calls; make it smaller")
        return self


class ServiceOptions(TypedDict, total=False):
    """The settings of a service that say how it is called, for those who guard one of their own."""

    concurrency: int
    rate: float | None
    burst: int
    attempts: int
    retry_ratio: float
    attempt_timeout: float
    budget: float
    backoff_initial: float
    backoff_max: float
    failure_threshold: int
    reset_timeout: float
    failure_rate: float | None
    failure_rate_calls: int
    failure_rate_seconds: float | None
    failure_rate_minimum: int


class EnrichmentSettings(ServiceSettings):
    """The external API that enriches entities."""

    adapter: Literal["gazetteer", "http", "none"] = Field(
        default="gazetteer", description="embedded gazetteer, any HTTP API, or none"
    )
    batch_size: int = Field(default=10, ge=1, description="entities a branch of the fan-out works on")
    max_failed_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of entities that may fail for good, as 0.5; more fail the thread; by default all may",
    )
    url: str | None = Field(default=None, description="http: the address, may hold {id}, {text}, {type}")
    method: Literal["GET", "POST", "PUT"] = Field(default="POST", description="http: the request method")
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="http: headers to send, such as an API key")
    body: dict[str, Any] | None = Field(
        default=None, description="http: the JSON to send, {id}, {text}, {type} filled in; default: the entity"
    )
    result: str = Field(default="", description="http: where in the answer the data is, as a dotted path")
    types: tuple[str, ...] = Field(
        default=("PERSON", "ORG", "LOC", "ENTITY"), description="http: entity types the API covers"
    )
    max_response_bytes: int = Field(default=1 * MIB, ge=1, description="largest answer that is read")
    send_traceparent: bool = Field(default=False, description="http: tell the API which trace a request is part of")


class ExtractionSettings(ServiceSettings):
    """The chat model as a recogniser: the one that summarizes, in a circuit of its own."""

    attempt_timeout: float = Field(default=60.0, gt=0, description="seconds one request may take")
    budget: float = Field(
        default=300.0,
        gt=0,
        description="seconds one call may take, retries and pauses included; no less than attempt_timeout",
    )
    concurrency: int = Field(default=4, ge=1, description="calls in flight at most")


class FallbackModel(Section):
    """A chat model that is asked where the ones before it cannot be; its name alone will do."""

    model: str = Field(description="the chat model as provider:name")
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments for init_chat_model")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        return {"model": value} if isinstance(value, str) else value


class SummarySettings(ServiceSettings):
    """The summary, and the chat model that writes it when one is configured."""

    attempt_timeout: float = Field(default=60.0, gt=0, description="seconds one request may take")
    budget: float = Field(
        default=300.0,
        gt=0,
        description="seconds one call may take, retries and pauses included; no less than attempt_timeout",
    )
    concurrency: int = Field(default=4, ge=1, description="calls in flight at most")
    max_sentences: int = Field(default=6, ge=1, le=50, description="sentences in a summary at most")
    chunk_tokens: int = Field(
        default=6000, ge=200, description="tokens of document text in one request to the model at most"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments for init_chat_model")
    fallbacks: tuple[FallbackModel, ...] = Field(
        default=(),
        description="models to ask where the one before cannot be: provider:name, or with options of its own",
    )


class JournalSettings(Section):
    """The journal of calls to services. Durations are in seconds."""

    enabled: bool = Field(default=True, description="record answers, and replay them instead of asking again")
    ttl: float = Field(default=30 * DAY, gt=0, description="seconds for which an answer is replayed")
    not_found_ttl: float = Field(default=1 * DAY, gt=0, description="seconds for which 'not found' is replayed")


class Settings(BaseSettings):
    """All settings; `Settings.read()` reads them. Variables are TIDEGATE_MODEL, TIDEGATE_ENRICHMENT__URL and so on."""

    model_config = SettingsConfigDict(
        env_prefix="TIDEGATE_", env_nested_delimiter="__", toml_file="tidegate.toml", extra="forbid", frozen=True
    )

    checkpoints: str = Field(
        default="sqlite:///tidegate.db",
        description="where threads live: sqlite:///FILE, file:///FOLDER, postgresql://HOST/DATABASE or memory:",
    )
    encryption_key: SecretStr | None = Field(
        default=None, description="sqlite: encrypts what is stored; 16, 24 or 32 bytes"
    )
    model: str | None = Field(
        default=None, description="the chat model as provider:name; without one, summaries are extractive"
    )
    recogniser: Literal["auto", "spacy", "rules", "model"] = Field(
        default="auto",
        description="entities by spaCy, by rules alone, by the best of both that is installed, or by the chat model",
    )
    max_document_bytes: int = Field(default=50 * MIB, ge=1, description="largest document that is taken in")
    max_expanded_bytes: int = Field(default=200 * MIB, ge=1, description="most that a zip-based document may expand to")
    max_rounds: int = Field(default=3, ge=1, description="times that one execution asks a service for what it lacks")
    max_visits: int = Field(default=5, ge=1, description="executions that try to get one missing item")
    lease_ttl: float = Field(
        default=30.0, ge=1.0, description="seconds of silence after which a process loses the thread that it runs"
    )
    journal: JournalSettings = Field(default_factory=lambda: JournalSettings())
    extraction: ExtractionSettings = Field(default_factory=lambda: ExtractionSettings())
    enrichment: EnrichmentSettings = Field(default_factory=lambda: EnrichmentSettings())
    summary: SummarySettings = Field(default_factory=lambda: SummarySettings())
    serve: ServeSettings = Field(default_factory=lambda: ServeSettings())
    trigger: tuple[Trigger, ...] = Field(default=(), description="what starts threads while `tidegate serve` runs")
    sink: tuple[Sink, ...] = Field(default=(), description="where the results of those threads go")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        check(self.trigger, self.sink)
        return self

    @property
    def key(self) -> bytes | None:
        """The encryption key as the store takes it, None without one."""
        return None if self.encryption_key is None else os.fsencode(self.encryption_key.get_secret_value())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Options come first, then variables, then the file; nothing else is read."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @classmethod
    def read(cls, **options: Any) -> Settings:
        """Read the settings; `options` are values given on the command line or in code.

        Raises:
            SettingsError: names each setting that is wrong and what it takes, without the values, which may be secrets.
        """
        _warn_of_unknown_variables()
        try:
            return cls(**options)
        except ValidationError as error:
            found = {
                "options": options,
                "by_variable": EnvSettingsSource(Settings)(),
                "by_file": TomlConfigSettingsSource(Settings)(),
            }
            wrong = [
                complaint(Wrong(each["type"], each["loc"], each["msg"], each.get("ctx", {})), cls, **found)
                for each in error.errors(include_input=False, include_url=False)
            ]
            raise SettingsError(f"{'; '.join(wrong)}; `tidegate settings` explains them all") from None
        except _SourceError as error:
            field = re.search(r'field "(\w+)"', str(error))
            section = f"TIDEGATE_{field[1]}".upper() if field else "TIDEGATE_"
            names = ", ".join(sorted(name for name in os.environ if name.upper().startswith(section)))
            raise SettingsError(f"one of these variables cannot be read, JSON is expected: {names}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise SettingsError(f"tidegate.toml cannot be read: {error}") from error


def _warn_of_unknown_variables() -> None:
    for variable in sorted(os.environ):
        name, _, rest = variable.upper().removeprefix("TIDEGATE_").partition("__")
        if variable.upper().startswith("TIDEGATE_") and not name.startswith("TEST_") and name not in _OF_COMMANDS:
            field = Settings.model_fields.get(name.lower())
            if field is None or (rest and field.default_factory is None):
                _log.warning("%s is no setting and is ignored; `tidegate settings` lists them all", variable)


@dataclass(frozen=True, slots=True)
class SettingInForce:
    """One setting: its dotted `name`, its `value` as text with secrets hidden, and where it is `set_by`."""

    name: str
    value: str
    set_by: str
    description: str


def by_default() -> list[SettingInForce]:
    """Return every setting with its default, whatever is set: where that is wrong, they have to be explained too."""
    return [*_rows(Settings.model_construct(), lambda _: "default"), *_kinds("trigger", Trigger), *_kinds("sink", Sink)]


def _kinds(name: str, kinds: Any) -> Iterator[SettingInForce]:
    """Return the settings that a table of each kind takes."""
    for model in get_args(get_args(kinds)[0]):
        [kind] = get_args(model.model_fields["kind"].annotation)
        for field_name, field in model.model_fields.items():
            if field_name != "kind":
                value = "(required)" if field.is_required() else _shown(field_name, field.default)
                yield SettingInForce(f"{name}.{kind}.{field_name}", value, "default", field.description or "")


def in_force(settings: Settings, **options: Any) -> list[SettingInForce]:
    """Return every setting with its value and its source: `option`, `TIDEGATE_…`, `tidegate.toml` or `default`."""
    by_variable = EnvSettingsSource(Settings)()
    by_file = TomlConfigSettingsSource(Settings)()

    def source(path: tuple[str, ...]) -> str:
        if holds(options, path):
            return "option"
        if holds(by_variable, path):
            return "TIDEGATE_" + "__".join(path).upper()
        return "tidegate.toml" if holds(by_file, path) else "default"

    return _rows(settings, source)


def _rows(settings: Settings, source: Callable[[tuple[str, ...]], str]) -> list[SettingInForce]:
    def rows(model: BaseModel, prefix: tuple[str, ...]) -> Iterator[SettingInForce]:
        for name, field in type(model).model_fields.items():
            value, path = getattr(model, name), (*prefix, name)
            if isinstance(value, BaseModel):
                yield from rows(value, path)
            elif value and isinstance(value, tuple) and isinstance(value[0], Named):
                for each in value:
                    yield from of_table(each, path)
            else:
                yield SettingInForce(".".join(path), _shown(name, value), source(path), field.description or "")

    def of_table(table: Named, path: tuple[str, ...]) -> Iterator[SettingInForce]:
        for name, field in type(table).model_fields.items():
            if name != "name":  # which the rows are named by
                shown = _shown(name, getattr(table, name))
                set_by = source(path) if name in table.model_fields_set else "default"
                yield SettingInForce(".".join((*path, table.name, name)), shown, set_by, field.description or "")

    return list(rows(settings, ()))


def _shown(name: str, value: object) -> str:
    """Return a value as text: secrets, and whatever looks like one by its name or stands in a URL, are hidden."""
    if isinstance(value, SecretStr):
        return "(hidden)"
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(key, item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(name, item) for item in value)
    if value is None:
        return "-"
    if _SECRET_NAME.search(name):
        return "(hidden)"
    return _USERINFO.sub("://(hidden)@", str(value)).partition("?")[0] if isinstance(value, str) else str(value)
