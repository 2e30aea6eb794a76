"""Exceptions of HTTP and model clients -> failures of the service, whichever client it is."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from socket import gaierror

from tidegate.errors import Permanent, Refused, ServiceError, Transient
from tidegate.resilience.failures import Classify, from_status, leads_away
from tidegate.store.clock import Clock

# Roots of the modules that clients define their exceptions in, forks with a number behind it and all of LangChain's
# packages too. A class of the same name from elsewhere, as Redis's ConnectionError, or an APIError of yours, is none.
_CLIENTS = frozenset(
    {"aiohttp", "anthropic", "httpcore", "httpx", "langchain", "ollama", "openai", "requests", "urllib"}
)
_BELOW = frozenset({"builtins", "socket", "ssl"})

UNPAID = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})

_SLOW = "no answer in time"
_BROKEN = "the connection broke off, or the answer is not HTTP"

# By name, the first one counts: a client that is not installed cannot be imported, Anthropic's raises the exceptions of
# a fork of httpx, and LangChain's classes inherit from those of the client and from its own.
_BY_NAME: Mapping[str, tuple[type[ServiceError], str]] = {
    "ContextOverflowError": (Permanent, "the request is too long"),
    "ContentFilterFinishReasonError": (Permanent, "the answer was withheld"),
    "OpenAIRefusalError": (Permanent, "the answer was withheld"),
    "LengthFinishReasonError": (Permanent, "the answer was cut off; allow a longer one"),
    "TooManyRedirects": (Permanent, "redirects again and again"),
    "UnsupportedProtocol": (Permanent, "the address, or the one it redirects to, is neither http nor https"),
    "LocalProtocolError": (Permanent, "the request cannot be sent by HTTP"),
    "InvalidURL": (Permanent, "the request cannot be sent by HTTP"),
    "ModelTimeoutError": (Transient, _SLOW),
    "APITimeoutError": (Transient, _SLOW),
    "TimeoutException": (Transient, _SLOW),
    "TimeoutError": (Transient, _SLOW),
    "ModelConnectionError": (Transient, _BROKEN),
    "APIConnectionError": (Transient, _BROKEN),
    "TransportError": (Transient, _BROKEN),
    "ConnectionError": (Transient, _BROKEN),
    "gaierror": (Transient, _BROKEN),
    "SSLError": (Transient, _BROKEN),
    "DecodingError": (Transient, "the answer cannot be decoded"),
    "APIResponseValidationError": (Transient, "the answer is of the wrong shape"),
    "OutputParserException": (Transient, "the answer is of the wrong shape"),
    "APIError": (Transient, "the answer broke off with an error"),
}
# LangChain's classes for providers whose own exceptions carry no status.
_STATUS_BY_NAME = {
    "ModelAuthenticationError": 401,
    "ModelPermissionDeniedError": 403,
    "ModelInvalidRequestError": 400,
    "ModelNotFoundError": 404,
    "ModelRateLimitError": 429,
    "ModelAPIError": 500,
}


def classify_clients(service: str, clock: Clock) -> Classify:
    """Return what sorts the exceptions of httpx, of other HTTP clients, and of OpenAI's, Anthropic's and Ollama's.

    An answer that is not JSON is `Transient`; what carries a `response` with a `status_code` is sorted by that. None
    for any other exception: it is a bug, or yours to sort.
    """
    return lambda error: of_client(error, service, clock)


def of_client(error: BaseException, service: str, clock: Clock, *, trusted: bool = False) -> ServiceError | None:
    """Return the failure that an exception is, by its code, by its HTTP status, or by the name of its class.

    `trusted` says that a client raised it, whatever package it is from.
    """
    code = getattr(error, "code", None) if trusted or _is_of_client(error) else None
    names = _names(error, trusted=trusted)
    if code == "context_length_exceeded":
        return Permanent(service, "the request is too long")
    if code == "content_filter":
        return Permanent(service, "the content was declined")
    if code in UNPAID:
        return Refused(service, "the account has no credit left")
    status = status_of(error, trusted=trusted)
    if status is not None and "ContextOverflowError" not in names:
        headers = _headers(error)
        away = leads_away(_asked(error), headers)
        return from_status(service, status, headers, clock, keyed=_is_keyed(error), away=away)
    for name, (kind, problem) in _BY_NAME.items():
        if name in names:
            return kind(service, _reason(error) if problem == _BROKEN else problem)
    if isinstance(error, json.JSONDecodeError):
        return Transient(service, "the answer is not JSON")
    return None


def status_of(error: BaseException, *, trusted: bool = False) -> int | None:
    """Return the HTTP status of an exception, if it is one of an error; `trusted` as in `of_client`.

    An error told inside a stream carries the status of the stream, which is 200.
    """
    response = _part(error, "response")
    found = [_part(response, "status_code")]
    if trusted or _is_of_client(error):
        found = [_part(place, name) for place in (error, response) for name in ("status_code", "status", "code")]
    names = _names(error, trusted=trusted)
    found += (status for name, status in _STATUS_BY_NAME.items() if name in names)
    return next((status for status in found if isinstance(status, int) and 300 <= status <= 999), None)


def _is_of_client(error: BaseException) -> bool:
    return any(_root(kind) in _CLIENTS for kind in type(error).__mro__)


def _names(error: BaseException, *, trusted: bool) -> set[str]:
    kinds = type(error).__mro__
    return {kind.__name__ for kind in kinds if trusted or _root(kind) in _CLIENTS or kind.__module__ in _BELOW}


def _root(kind: type) -> str:
    root = kind.__module__.partition(".")[0].rstrip("0123456789")
    return "langchain" if root.startswith("langchain") else root


def _headers(error: BaseException) -> Mapping[str, str]:
    found = (_part(place, "headers") for place in (_part(error, "response"), error))
    return next((headers for headers in found if isinstance(headers, Mapping)), {})


def _requests(error: BaseException) -> Iterator[object]:
    return (_part(place, "request") for place in (error, _part(error, "response")))


def _asked(error: BaseException) -> str:
    return next((str(url) for request in _requests(error) if (url := _part(request, "url")) is not None), "")


def _is_keyed(error: BaseException) -> bool:
    sent = (_part(request, "headers") for request in _requests(error))
    return any(isinstance(headers, Mapping) and "idempotency-key" in map(str.lower, headers) for headers in sent)


def _part(whole: object, name: str) -> object:
    try:
        return getattr(whole, name, None)
    except RuntimeError:  # httpx raises it for an exception without a request
        return None


def _reason(error: BaseException) -> str:
    known = {
        gaierror: "no host has this name",
        ssl.SSLCertVerificationError: "its TLS certificate is not to be trusted",
        ConnectionRefusedError: "the connection was refused",
    }
    names = set[str]()
    for cause in _causes(error):
        names.add(type(cause).__name__)
        for kind, reason in known.items():
            if isinstance(cause, kind):
                return reason
    return "no connection" if names & {"ConnectError", "ProxyError"} else _BROKEN


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk the chain of causes, groups included: a host with several addresses fails once for each."""
    found: list[BaseException] = [error]
    for cause in found:
        yield cause
        if isinstance(cause, BaseExceptionGroup):
            found.extend(cause.exceptions)
        further = cause.__cause__ or cause.__context__
        if further is not None and further not in found:
            found.append(further)
