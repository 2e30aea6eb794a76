"""The HTTP interface against its own description: whatever schemathesis makes of that is answered as it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.internal.conjecture.utils import many
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.servers.service import Served, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning"),
]
TOKEN = "token-of-the-test"
END = object()
Operation: TypeAlias = APIOperation[Any, Any, Any]
AUTHORIZATION = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(
        headers=AUTHORIZATION,
        serve={"tokens": [TOKEN], "max_queued": 10},
        max_document_bytes=10_000,
        trigger=[{"kind": "webhook", "unsigned": True, "name": "open"}],
    ) as it:
        it.until(it.start("Ada Lovelace lived in London."), "complete")
        yield it


@pytest.fixture(autouse=True)
def old_and_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give Hypothesis back what hypothesis-jsonschema (0.23.1) calls and newer releases (6.170) have no more."""

    def more(elements: Any) -> bool:
        if not hasattr(elements, "iterator"):
            elements.__enter__()
            elements.iterator = iter(elements)
        goes_on = next(elements.iterator, END) is not END
        if not goes_on:
            elements.__exit__(None)
        return goes_on

    if not hasattr(many, "more"):
        monkeypatch.setattr(many, "more", more, raising=False)


OPERATIONS = [
    "GET /healthz",
    "GET /metrics",
    "GET /readyz",
    "GET /v1/circuits",
    "GET /v1/threads",
    "GET /v1/threads/{thread_id}",
    "GET /v1/threads/{thread_id}/events",
    "POST /hooks/open",
    "POST /v1/threads",
    "POST /v1/threads/{thread_id}/cancel",
    "POST /v1/threads/{thread_id}/resume",
    "POST /v1/threads/{thread_id}/retry",
]


@pytest.fixture(scope="module")
def described(served: Served) -> dict[str, Operation]:
    schema = schemathesis.openapi.from_url(f"{served.service.url}/v1/openapi.json", headers=AUTHORIZATION)
    found = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
    return {f"{each.method.upper()} {each.path}": each for each in found}


def test_every_operation_is_described(described: dict[str, Operation]) -> None:
    assert sorted(described) == OPERATIONS


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *((name, GenerationMode.POSITIVE) for name in OPERATIONS),
        ("GET /v1/threads", GenerationMode.NEGATIVE),
        ("POST /v1/threads", GenerationMode.NEGATIVE),
    ],
)
def test_what_is_described_is_what_is_done(described: dict[str, Operation], name: str, mode: GenerationMode) -> None:
    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        database=None,
    )
    @given(described[name].as_strategy(generation_mode=mode))
    def ask(case: Case) -> None:
        # No description says which texts are cursors, and which documents can be read: those may be refused. And what
        # schemathesis takes for a violation may be none: any bytes are a document, and of a parameter that is there
        # several times the last counts.
        excluded = [positive_data_acceptance, negative_data_rejection]
        case.call_and_validate(headers=AUTHORIZATION, timeout=20, excluded_checks=excluded)

    ask()
