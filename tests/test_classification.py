"""Exceptions of clients -> failures: with the clients' own exceptions, by status and by class."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import httpx
import pytest
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
    ModelTimeoutError,
    OutputParserException,
)

from tidegate.errors import InProgress, NotFound, Permanent, RateLimited, Refused, ServiceError, Transient
from tidegate.resilience.classification import classify_clients, of_client
from tidegate.testing import ManualClock

Kind: TypeAlias = type[ServiceError]
URL = "https://api.example/v1"

STATUSES: list[tuple[int, Kind]] = [
    (400, Permanent),
    (401, Refused),
    (403, Refused),
    (404, NotFound),
    (408, Transient),
    (409, Permanent),
    (413, Permanent),
    (422, Permanent),
    (429, RateLimited),
    (500, Transient),
    (502, Transient),
    (503, Transient),
    (504, Transient),
    (529, Transient),
]


def failure_of(error: BaseException) -> ServiceError | None:
    return classify_clients("api", ManualClock())(error)


def raised(call: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - its class is what the tests look at
        call()
    return caught.value


def by_httpx(status: int, body: Any = None, **headers: str) -> BaseException:
    request = httpx.Request("POST", URL, headers={"idempotency-key": "k"} if headers.pop("keyed", None) else {})
    return raised(httpx.Response(status, headers=headers, json=body, request=request).raise_for_status)


def by_client(package: str) -> Callable[..., BaseException]:
    """The status error that OpenAI's or Anthropic's client makes of an answer, and raises."""

    def make(status: int, body: Any = None, **headers: str) -> BaseException:
        client: ModuleType = pytest.importorskip(package)
        http: Any = getattr(client._exceptions, "httpx2", httpx)  # Anthropic's is a fork of httpx
        request = http.Request("POST", URL, headers={"Idempotency-Key": "k"} if headers.pop("keyed", None) else {})
        response = http.Response(status, headers=headers, json=body or {}, request=request)
        maker = client.OpenAI if package == "openai" else client.Anthropic
        error: BaseException = maker(api_key="test-key")._make_status_error_from_response(response)
        return error

    return make


def by_ollama(status: int, body: Any = None, **headers: str) -> BaseException:
    ollama: Any = pytest.importorskip("ollama")
    error: BaseException = ollama.ResponseError(json.dumps({"error": "no"}), status)
    return error


CLIENTS = {"httpx": by_httpx, "openai": by_client("openai"), "anthropic": by_client("anthropic"), "ollama": by_ollama}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_an_error_is_sorted_by_its_status_whichever_client_raises_it(client: str, status: int, kind: Kind) -> None:
    failure = failure_of(CLIENTS[client](status))
    assert type(failure) is kind
    assert failure is not None
    assert failure.problem.startswith(f"answered {status}")


@pytest.mark.parametrize("client", ["httpx", "openai", "anthropic"])
def test_a_conflict_over_an_idempotency_key_means_that_the_first_request_goes_on(client: str) -> None:
    failure = failure_of(CLIENTS[client](409, keyed="yes"))
    assert type(failure) is InProgress
    assert failure.retryable
    assert type(failure_of(CLIENTS[client](422, keyed="yes"))) is Permanent  # the key was used for something else


@pytest.mark.parametrize("client", ["httpx", "openai", "anthropic"])
@pytest.mark.parametrize("status", [429, 503])
def test_the_pause_that_an_answer_asks_for_is_read(client: str, status: int) -> None:
    failure = failure_of(CLIENTS[client](status, **{"Retry-After": "7"}))
    assert isinstance(failure, RateLimited)
    assert failure.retry_after == 7.0


@pytest.mark.parametrize("client", ["httpx", "openai", "anthropic"])
@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("https://login.example/?then=v1", Refused),
        ("//login.example/", Refused),
        ("https://API.example:8443/v2", Permanent),
        ("/v2", Permanent),
        ("https://[", Permanent),
        ("", Permanent),
    ],
)
def test_a_redirect_that_is_not_followed_is_permanent_unless_it_leads_to_another_host(
    client: str, location: str, kind: Kind
) -> None:
    assert type(failure_of(CLIENTS[client](302, Location=location))) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ContextOverflowError(), Permanent),
        (ModelAuthenticationError(), Refused),
        (ModelPermissionDeniedError(), Refused),
        (ModelInvalidRequestError(), Permanent),
        (ModelNotFoundError(), NotFound),
        (ModelRateLimitError(), RateLimited),
        (ModelAPIError(), Transient),
        (ModelConnectionError(), Transient),
        (ModelTimeoutError(), Transient),
        (OutputParserException("no"), Transient),
        (TimeoutError(), Transient),
        (ConnectionRefusedError(), Transient),
        (httpx.ConnectError("no"), Transient),
        (httpx.ReadTimeout("no"), Transient),
        (httpx.RemoteProtocolError("no"), Transient),
        (httpx.DecodingError("no"), Transient),
        (httpx.TooManyRedirects("no"), Permanent),
        (httpx.UnsupportedProtocol("no"), Permanent),
        (httpx.LocalProtocolError("no"), Permanent),
        (httpx.InvalidURL("no"), Permanent),
        (raised(lambda: json.loads("<html>")), Transient),
    ],
)
def test_an_error_without_a_status_is_sorted_by_its_class(error: Exception, kind: Kind) -> None:
    assert type(failure_of(error)) is kind


def test_every_class_of_langchain_is_known() -> None:
    known = {type(failure_of(kind())) for kind in (*ModelError.__subclasses__(), ContextOverflowError)}
    assert type(None) not in known


def test_what_openai_raises_beside_statuses_is_known() -> None:
    openai = pytest.importorskip("openai")
    base = pytest.importorskip("langchain_openai.chat_models.base")
    request = httpx.Request("POST", URL)
    connection = openai.APIConnectionError(request=request)
    connection.__cause__ = httpx.ConnectError("no")
    told_in_a_stream = openai.APIError("overloaded", request, body={"code": "server_error"})
    too_long = base.OpenAIAPIContextOverflowError("too long", request, body=None)
    invalid = openai.APIResponseValidationError(httpx.Response(200, request=request), None)
    for error, kind, problem in [
        (connection, Transient, "no connection"),
        (openai.APITimeoutError(request), Transient, "no answer in time"),
        (told_in_a_stream, Transient, "broke off"),
        (invalid, Transient, "wrong shape"),
        (too_long, Permanent, "too long"),
        (openai.ContentFilterFinishReasonError(), Permanent, "withheld"),
        (base.OpenAIRefusalError("I would rather not."), Permanent, "withheld"),
    ]:
        failure = failure_of(error)
        assert type(failure) is kind
        assert failure is not None
        assert problem in failure.problem


@pytest.mark.parametrize(
    ("status", "code", "kind", "problem"),
    [
        (400, "context_length_exceeded", Permanent, "too long"),
        (400, "content_filter", Permanent, "declined"),
        (429, "insufficient_quota", Refused, "no credit"),
        (429, "rate_limit_exceeded", RateLimited, "429"),
    ],
)
def test_openais_codes_say_more_than_the_status(status: int, code: str, kind: Kind, problem: str) -> None:
    failure = failure_of(by_client("openai")(status, {"error": {"code": code, "message": "no"}}))
    assert type(failure) is kind
    assert failure is not None
    assert problem in failure.problem


def test_what_anthropic_raises_beside_statuses_is_known() -> None:
    anthropic = pytest.importorskip("anthropic")
    models = pytest.importorskip("langchain_anthropic.chat_models")
    http: Any = getattr(anthropic._exceptions, "httpx2", httpx)
    request = http.Request("POST", URL)
    response = http.Response(400, request=request)
    told_in_a_stream = by_client("anthropic")(200, {"error": {"type": "overloaded_error"}})
    for error, kind in [
        (anthropic.APIConnectionError(request=request), Transient),
        (anthropic.APITimeoutError(request), Transient),
        (told_in_a_stream, Transient),
        (models.AnthropicContextOverflowError("too long", response=response, body=None), Permanent),
    ]:
        assert type(failure_of(error)) is kind


@pytest.mark.parametrize("bug", [KeyError("x"), ValueError("x"), FileNotFoundError("x"), TypeError("x")])
def test_a_bug_is_no_failure_of_the_service(bug: Exception) -> None:
    assert failure_of(bug) is None


def elsewhere(name: str, base: type[Exception] = Exception, **attributes: object) -> Exception:
    """An exception of a package that is no client of ours, under a name that clients use too."""
    error: Exception = type(name, (base,), {"__module__": "redis.exceptions"})("no")
    vars(error).update(attributes)
    return error


@pytest.mark.parametrize(
    "error",
    [
        *map(elsewhere, ("APIError", "ConnectionError", "TimeoutError", "TransportError", "ModelAPIError")),
        *(elsewhere("Failure", Exception, **{name: 500}) for name in ("code", "status", "status_code")),
        elsewhere("Failure", code="insufficient_quota"),
        elsewhere("Failure", response={"status_code": 500}),
    ],
)
def test_an_exception_of_yours_that_looks_like_a_clients_passes_through(error: Exception) -> None:
    assert failure_of(error) is None


def test_an_exception_that_carries_a_response_is_sorted_by_its_status() -> None:
    response = httpx.Response(429, headers={"Retry-After": "7"})
    failure = failure_of(elsewhere("Failure", response=response, status=500))
    assert isinstance(failure, RateLimited)
    assert failure.retry_after == 7.0


@pytest.mark.parametrize("base", [ConnectionError, TimeoutError, httpx.ConnectError])
def test_a_class_of_yours_is_what_it_inherits_from(base: type[Exception]) -> None:
    assert type(failure_of(elsewhere("CustomersAreDown", base))) is Transient


def test_what_a_chat_model_raises_is_a_clients_whatever_its_package() -> None:
    for error, kind in [(elsewhere("ApiError", code=401), Refused), (elsewhere("APITimeoutError"), Transient)]:
        assert type(of_client(error, "model", ManualClock(), trusted=True)) is kind
