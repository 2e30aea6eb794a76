"""The settings, read once, at the door: options, then TIDEGATE_* variables, then tidegate.toml, then defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from tidegate.errors import SettingsError

Policy: TypeAlias = Literal["degrade", "wait", "fail"]
MIB = 1024 * 1024


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServiceSettings(_Section):
    """How calls to one service are guarded. Durations are in seconds."""

    when_open: Policy = Field("degrade", description="while the circuit is open: degrade, wait or fail")
    concurrency: int = Field(8, ge=1, description="calls in flight at most")
    attempts: int = Field(4, ge=1, description="requests a call may make, the first included")
    attempt_timeout: float = Field(10.0, gt=0, description="seconds one request may take")
    budget: float = Field(120.0, gt=0, description="seconds one call may take, retries and pauses included")
    backoff_initial: float = Field(0.5, ge=0, description="seconds before the first retry, doubled for each further one")
    backoff_max: float = Field(30.0, ge=0, description="seconds between two attempts at most")
    failure_threshold: int = Field(3, ge=1, description="consecutive failures that open the circuit")
    reset_timeout: float = Field(30.0, gt=0, description="seconds until an open circuit lets one probe through")


class EnrichmentSettings(ServiceSettings):
    """The external API that enriches entities."""

    adapter: Literal["gazetteer", "http", "none"] = Field("gazetteer", description="embedded gazetteer, any HTTP API, or none")
    batch_size: int = Field(10, ge=1, description="entities a branch of the fan-out works on")
    url: str | None = Field(None, description="http: the address, may hold {id}, {text}, {type}")
    method: Literal["GET", "POST", "PUT"] = Field("POST", description="http: the request method")
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="http: headers to send, such as an API key")
    body: dict[str, Any] | None = Field(None, description="http: the JSON to send, {id}, {text}, {type} filled in; default: the entity")
    result: str = Field("", description="http: where in the answer the data is, as a dotted path")
    types: tuple[str, ...] = Field(("PERSON", "ORG", "LOC", "ENTITY"), description="http: entity types the API covers")
    max_response_bytes: int = Field(1 * MIB, ge=1, description="largest answer that is read")


class SummarySettings(ServiceSettings):
    """The summary, and the chat model that writes it when one is configured."""

    attempt_timeout: float = Field(60.0, gt=0, description="seconds one request may take")
    budget: float = Field(300.0, gt=0, description="seconds one call may take, retries and pauses included")
    concurrency: int = Field(4, ge=1, description="calls in flight at most")
    max_sentences: int = Field(6, ge=1, le=50, description="sentences in a summary at most")
    chunk_tokens: int = Field(6000, ge=200, description="tokens of document text in one request to the model at most")
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments for init_chat_model")


class Settings(BaseSettings):
    """All settings. Variables are TIDEGATE_MODEL, TIDEGATE_ENRICHMENT__URL and so on."""

    model_config = SettingsConfigDict(
        env_prefix="TIDEGATE_", env_nested_delimiter="__", toml_file="tidegate.toml", extra="forbid", frozen=True
    )

    checkpoints: str = Field("sqlite:///tidegate.db", description="where threads live: sqlite:///FILE, file:///FOLDER or memory:")
    model: str | None = Field(None, description="the chat model as provider:name; without one, summaries are extractive")
    recogniser: Literal["auto", "spacy", "rules"] = Field("auto", description="entities by spaCy, rules alone, or the best installed")
    max_document_bytes: int = Field(50 * MIB, ge=1, description="largest document that is taken in")
    max_expanded_bytes: int = Field(200 * MIB, ge=1, description="most that a zip-based document may expand to")
    max_rounds: int = Field(3, ge=1, description="fan-outs to the enrichment API in one execution at most")
    max_visits: int = Field(5, ge=1, description="executions that try again what is missing at most")
    enrichment: EnrichmentSettings = Field(default_factory=EnrichmentSettings)
    summary: SummarySettings = Field(default_factory=SummarySettings)
