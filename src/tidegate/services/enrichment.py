"""The enrichment API: entities in, what the API knows of them out, through one guarded HTTP client."""

from __future__ import annotations

import asyncio
import json
import math
import random as randomness
import re
import typing
import unicodedata
import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx

from tidegate.errors import NotFound, SettingsError
from tidegate.resilience.breaker import Breaker
from tidegate.resilience.guard import Answer, Guard, Keep
from tidegate.resilience.journal import Call, Journal
from tidegate.resilience.rates import Rates
from tidegate.services import gazetteer, http
from tidegate.settings import EnrichmentSettings
from tidegate.state import JSON, Entity, EntityType
from tidegate.store.clock import Clock, SystemClock

MAX_DEPTH: Final = 32
"""Lists and objects inside one another in an answer at most; checkpoints and readers recurse over them."""

_LARGE_ANSWER = 64 * 1024  # bytes from which an answer is parsed off the event loop: a megabyte takes some 10 ms
_PLACEHOLDER = re.compile(r"\{(\w*)\}")
_PLACEHOLDERS = ("id", "text", "type")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_VISIBLE = re.compile(r"[\x20-\x7e\t]*")
_CREDENTIAL = re.compile(r"auth|key|token|secret|password|cookie|signature", re.IGNORECASE)  # changes no answer
_OURS = frozenset({"idempotency-key", "content-length", "transfer-encoding"})
_GAZETTEER = "http://gazetteer/enrich"  # no host has to have this name: requests go straight to the application


class HttpEnricher:
    """An API that is asked about one entity a request.

    Sends the entity as JSON, `{"id", "text", "type"}`, for dates and amounts `"value"` and for some places `"within"`,
    unless the settings say otherwise, and expects a JSON object. It is safe to use from several event loops.
    """

    def __init__(
        self,
        settings: EnrichmentSettings,
        *,
        breaker: Breaker,
        journal: Journal | None = None,
        rates: Rates | None = None,
        clock: Clock | None = None,
        random: randomness.Random | None = None,
    ) -> None:
        """Check the settings; nothing is sent yet. The circuit's name becomes that of the service.

        Without a journal, every answer is asked for again. The gazetteer does without: its answers are free.

        Raises:
            SettingsError: a setting is missing or does not fit. The message names it.
        """
        clock = clock or SystemClock()
        self.name: str = breaker.name
        transport = None
        self._types: tuple[str, ...]
        if settings.adapter == "gazetteer":
            if settings.url is not None:
                raise SettingsError(
                    "enrichment.url is set, but enrichment.adapter is 'gazetteer'; set it to 'http', or unset the url"
                )
            settings = settings.model_copy(update={"method": "POST", "headers": {}, "body": None, "result": ""})
            transport = httpx.ASGITransport(gazetteer.app)
            self._url, self.source, self._types = _GAZETTEER, "GeoNames", gazetteer.TYPES
        else:
            self._url, self.source = _checked_url(settings)
            self._types = _checked_types(settings.types)
        self._method = settings.method
        self._headers = _checked_headers(settings)
        self._body = settings.body
        self._result = settings.result.split(".") if settings.result else []
        self._max_bytes = settings.max_response_bytes
        self._traced = settings.send_traceparent
        self._journal = journal if settings.adapter == "http" else None
        self._sends_id = "{id}" in self._url or "{id}" in json.dumps(settings.body)
        shaping = {name.lower(): value for name, value in self._headers.items() if not _CREDENTIAL.search(name)}
        self._shape = [self._method, self._url, self._body, self._result, shaping]
        self._clients = http.Clients(
            timeout=settings.attempt_timeout, connections=settings.concurrency, transport=transport
        )
        self._guard = Guard(
            breaker,
            settings=settings,
            classify=http.classify(self.name, clock),
            rates=rates,
            clock=clock,
            random=random,
        )

    def __repr__(self) -> str:
        return f"<HttpEnricher {self.name}: {self.source}>"

    def covers(self, entity_type: str) -> bool:
        """Say whether the API is asked about entities of this type."""
        return entity_type in self._types

    async def look_up(self, entity: Entity) -> Answer[JSON]:
        """Return what the API says of one entity, or said before, as the journal has it.

        The answer is a JSON object of 64-bit numbers and clean text, no deeper than `MAX_DEPTH`. All requests for it
        carry one `Idempotency-Key`, so that the API may see that they are one.

        Raises:
            NotFound: the API knows no such thing: 404, or an empty answer.
            LeaseLost: as `Journal.call`.
            ServiceError: as `Guard.call` says.
        """
        if self._journal is None:
            return await self._call(entity, str(uuid.uuid4()), None)
        asked = [_normal(entity.text), entity.type, entity.value, entity.id if self._sends_id else None]
        call = Call.of(self.name, "enrich", self._shape, asked)
        return await self._journal.call(call, lambda key, keep: self._call(entity, key, keep))

    async def _call(self, entity: Entity, idempotency_key: str, keep: Keep[JSON] | None) -> Answer[JSON]:
        return await self._guard.call(lambda attempt: self._ask(entity, idempotency_key, attempt), keep=keep)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._clients.aclose()

    async def _ask(self, entity: Entity, idempotency_key: str, attempt: int) -> JSON:
        if self._journal is not None:
            await self._journal.confirm()
        async with self._clients.lent() as client:
            request = client.build_request(
                self._method,
                _PLACEHOLDER.sub(lambda found: _in_url(_field(entity, found[1])), self._url),
                headers={**self._headers, "Idempotency-Key": idempotency_key},
                content=None if self._method == "GET" else json.dumps(self._payload(entity)).encode(),
            )
            reply = await http.exchange(
                client,
                request,
                max_bytes=self._max_bytes,
                attempt=attempt,
                shown_as=self._url,
                traced=self._traced,
            )
        if len(reply.body) > _LARGE_ANSWER:
            answer = await asyncio.to_thread(read_answer, reply.body, self._result)
        else:
            answer = read_answer(reply.body, self._result)
        if answer is None:
            raise NotFound(self.name, "has an empty answer")
        return answer

    def _payload(self, entity: Entity) -> Any:
        if self._body is not None:
            return _filled(self._body, entity)
        payload: JSON = {"id": entity.id, "text": entity.text, "type": entity.type}
        if entity.within is not None:
            payload["within"] = entity.within
        return payload if entity.value is None else {**payload, "value": entity.value}


def open_enricher(
    settings: EnrichmentSettings,
    *,
    breaker: Breaker,
    journal: Journal | None = None,
    rates: Rates | None = None,
    clock: Clock | None = None,
    random: randomness.Random | None = None,
) -> HttpEnricher | None:
    """Return what the settings ask for: the embedded gazetteer, an HTTP API, or None.

    Raises:
        SettingsError: a setting is missing or does not fit. The message names it.
    """
    if settings.adapter == "none":
        return None
    return HttpEnricher(settings, breaker=breaker, journal=journal, rates=rates, clock=clock, random=random)


def read_answer(body: bytes, result: list[str]) -> JSON | None:
    """Return the object that an answer holds at the path `result`, None if the answer is empty there.

    Raises:
        BodyError: it is not JSON, not an object, or not of the bounds that `look_up` promises.
    """
    try:
        answer: object = json.loads(body) if body.strip() else None
    except (ValueError, RecursionError):
        raise http.BodyError("the answer is not JSON") from None
    for key in result:
        if answer in (None, {}, []):
            return None
        answer = _step(answer, key)
    if answer in (None, {}, []):
        return None
    if not isinstance(answer, dict):
        raise http.BodyError("the answer is no JSON object; let enrichment.result lead to one")
    cleaned: JSON = _clean(answer, MAX_DEPTH)
    return cleaned


def _step(answer: object, key: str) -> object:
    if isinstance(answer, dict) and key in answer:
        return answer[key]
    if isinstance(answer, list) and key.isdecimal():
        return answer[int(key)] if len(key) < 10 and int(key) < len(answer) else None
    raise http.BodyError("the answer has nothing where enrichment.result points")


def _clean(value: Any, depth: int) -> Any:
    """Return the value, fit to be stored: MessagePack has no more than 64 bits, UTF-8 no half of a pair."""
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, float) and not math.isfinite(value):  # Python reads NaN and Infinity, which are no JSON
        raise http.BodyError("the answer holds a number that is none, or too large")
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise http.BodyError("the answer holds a number of more than 64 bits")
    if not isinstance(value, (dict, list)):
        return value
    if depth == 0:
        raise http.BodyError(f"the answer is nested more than {MAX_DEPTH} deep")
    if isinstance(value, list):
        return [_clean(item, depth - 1) for item in value]
    return {_clean_text(key): _clean(item, depth - 1) for key, item in value.items()}


def _clean_text(text: str) -> str:
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _normal(text: str) -> str:
    """Return a name as the journal compares it: the same characters and gaps, however they are written."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _field(entity: Entity, name: str) -> str:
    return {"id": entity.id, "text": entity.text, "type": entity.type}[name]


def _in_url(text: str) -> str:
    """Percent-encode all of it, so that a name stays one segment: even `..`, which is no step up."""
    encoded = quote(text, safe="", errors="replace")
    return encoded.replace(".", "%2E") if not encoded.strip(".") else encoded


def _filled(template: object, entity: Entity) -> object:
    if isinstance(template, str):
        return _PLACEHOLDER.sub(
            lambda found: _field(entity, found[1]) if found[1] in _PLACEHOLDERS else found[0], template
        )
    if isinstance(template, Mapping):
        return {key: _filled(item, entity) for key, item in template.items()}
    if isinstance(template, (list, tuple)):
        return [_filled(item, entity) for item in template]
    return template


def _checked_url(settings: EnrichmentSettings) -> tuple[str, str]:
    """Return the address with its placeholders, and its host."""
    if not settings.url:
        raise SettingsError("enrichment.adapter is 'http', but enrichment.url is not set; set it to the API's address")
    template = settings.url.strip()
    unknown = sorted({name for name in _PLACEHOLDER.findall(template) if name not in _PLACEHOLDERS})
    if unknown:
        raise SettingsError(
            f"enrichment.url holds {{{unknown[0]}}}; what can be filled in is {{id}}, {{text}} and {{type}}"
        )
    try:
        url = httpx.URL(_PLACEHOLDER.sub("x", template))
        fixed = httpx.URL(_PLACEHOLDER.sub("y", template))
    except httpx.InvalidURL:
        raise SettingsError(
            "enrichment.url is no valid address; it looks like https://api.example.com/enrich"
        ) from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise SettingsError("enrichment.url has to begin with http:// or https:// and the name of a host")
    if url.copy_with(raw_path=b"/", fragment=None) != fixed.copy_with(raw_path=b"/", fragment=None):
        raise SettingsError("enrichment.url may hold placeholders after the host only: in its path or query")
    if settings.method == "GET" and not _PLACEHOLDER.search(template):
        raise SettingsError(
            "enrichment.method is GET, but enrichment.url does not say what for; use {text} or {id} in it"
        )
    if settings.method == "GET" and settings.body is not None:
        raise SettingsError("enrichment.body is set, but enrichment.method is GET, which has none; use POST")
    return template, url.netloc.decode("ascii")


def _checked_types(types: tuple[str, ...]) -> tuple[str, ...]:
    known = typing.get_args(EntityType)
    unknown = [name for name in types if name not in known]
    if unknown:
        raise SettingsError(f"enrichment.types holds {unknown[0]!r}; the types are {', '.join(known)}")
    return types


def _checked_headers(settings: EnrichmentSettings) -> dict[str, str]:
    headers = {"Accept": "application/json"}
    if settings.method != "GET":
        headers["Content-Type"] = "application/json"
    for name, secret in settings.headers.items():
        if not _TOKEN.fullmatch(name):
            raise SettingsError(f"enrichment.headers holds {name!r}, which cannot be a header's name")
        if name.lower() in _OURS:
            raise SettingsError(f"enrichment.headers holds {name!r}, which is set for each request; remove it")
        value = secret.get_secret_value().strip()
        if not _VISIBLE.fullmatch(value):
            raise SettingsError(f"the value of {name!r} in enrichment.headers holds characters that no header can")
        headers = {known: kept for known, kept in headers.items() if known.lower() != name.lower()}
        headers[name] = value
    return headers
