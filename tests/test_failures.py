"""HTTP answers -> failures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import NotFound, Permanent, RateLimited, Refused, ServiceError, Transient
from tidegate.resilience.failures import failure_of, from_status, retry_after
from tidegate.testing import ManualClock

NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
DAY = 86400.0


def fail(status: int, **headers: str) -> ServiceError:
    return from_status("api", status, {name.replace("_", "-"): value for name, value in headers.items()}, clock())


def clock() -> ManualClock:
    return ManualClock(NOW.timestamp())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *[(status, Refused) for status in (401, 403, 407)],
        *[(status, NotFound) for status in (404, 410)],
        *[(status, Transient) for status in (408, 425, 500, 502, 503, 504, 507, 520, 599, 600, 999)],
        *[(status, Permanent) for status in (400, 402, 405, 409, 413, 415, 418, 422, 431, 451)],
        *[(status, Permanent) for status in (301, 302, 304, 307, 308, 101)],
        (429, RateLimited),
    ],
)
def test_each_status_is_a_failure_of_its_class(status: int, kind: type[ServiceError]) -> None:
    failure = fail(status)
    assert type(failure) is kind
    assert str(failure).startswith(f"api: answered {status}")


def test_an_unavailable_service_that_says_when_to_come_back_limits_the_rate() -> None:
    failure = fail(503, Retry_After="7")
    assert isinstance(failure, RateLimited)
    assert failure.retry_after == 7.0
    assert type(fail(503, Retry_After="soon")) is Transient
    assert type(fail(500, Retry_After="7")) is Transient


def test_a_rate_limit_may_leave_open_for_how_long() -> None:
    failure = fail(429)
    assert isinstance(failure, RateLimited)
    assert failure.retry_after is None


def test_a_success_is_no_failure() -> None:
    with pytest.raises(ValueError, match="api answered 204"):
        fail(204)


IN_90_S = NOW + timedelta(seconds=90)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("1.5", 1.5),
        ("99999999999999999999", DAY),
        ("9" * 25, DAY),
        ("3, 5", 5.0),
        ("5,3", 5.0),
        ("-1, 0.5", 0.5),
        ("3;x", 3.0),
        (format_datetime(IN_90_S, usegmt=True), 90.0),
        (IN_90_S.strftime("%A, %d-%b-%y %H:%M:%S GMT"), 90.0),
        (IN_90_S.strftime("%a %b %e %H:%M:%S %Y"), 90.0),
        ("Sun, 01 Mar 2026 10:31:30 +0100", 90.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 9999 08:49:37 GMT", DAY),
        *[(value, None) for value in ("", "soon", "5,", "5, soon", "1e3", "inf", "nan", "٣", "10 s", ";3")],
        *[(value, None) for value in ("Sun, 06 Nov 1994 25:00:00 GMT", "Sun, 31 Feb 2026 08:00:00 GMT", "\x00", ",")],
    ],
)
def test_a_pause_is_read_in_seconds_and_as_a_date(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-AFTER": value}, clock()) == seconds


def test_no_pause_is_asked_for_without_the_header() -> None:
    assert retry_after({"Date": "5"}, clock()) is None


@given(
    st.text()
    | st.text(alphabet="0123456789 ,;.+-eE\t")
    | st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,6} \d{1,3}:\d{1,3}:\d{1,3} ?[A-Z+-]?\d*")
)
def test_no_value_of_the_header_is_too_strange(value: str) -> None:
    seconds = retry_after({"Retry-After": value}, clock())
    assert seconds is None or 0.0 <= seconds <= DAY


def test_a_huge_header_is_read_at_once() -> None:
    for value in (" " * 5_000_000 + "x", "Sun, " * 1_000_000, "-" * 5_000_000, "9" * 5_000_000 + "x", "9, " * 500_000):
        assert retry_after({"Retry-After": value}, clock()) is None
    assert retry_after({"Retry-After": "9" * 5_000_000}, clock()) == DAY


def classifier(error: BaseException) -> ServiceError | None:
    return Transient("api", "no connection") if isinstance(error, OSError) else None


def test_a_failure_that_names_the_service_is_its_own_verdict() -> None:
    refused = Refused("api", "no")
    assert failure_of(refused, "api", classifier) is refused
    assert failure_of(Refused("another", "no"), "api", classifier) is None
    assert isinstance(failure_of(OSError(), "api", classifier), Transient)
    assert failure_of(KeyError(), "api", classifier) is None


@pytest.mark.parametrize(
    ("kinds", "gravest"),
    [
        ([Transient, NotFound], NotFound),
        ([NotFound, Permanent], Permanent),
        ([Permanent, Refused, Transient], Refused),
        ([Transient], Transient),
    ],
)
def test_a_group_of_failures_is_its_gravest(kinds: list[type[ServiceError]], gravest: type[ServiceError]) -> None:
    group = ExceptionGroup("", [ExceptionGroup("", [kind("api", "x") for kind in kinds]), OSError()])
    assert type(failure_of(group, "api", classifier)) is gravest


def test_of_two_pauses_in_a_group_the_longer_counts() -> None:
    pauses = [RateLimited("api", "x", retry_after=seconds) for seconds in (1.0, 9.0, None)]
    failure = failure_of(ExceptionGroup("", pauses), "api", classifier)
    assert isinstance(failure, RateLimited)
    assert failure.retry_after == 9.0


def test_a_group_with_a_bug_in_it_is_no_failure_of_the_service() -> None:
    assert failure_of(ExceptionGroup("", [OSError(), KeyError()]), "api", classifier) is None
    assert failure_of(BaseExceptionGroup("", [OSError(), KeyboardInterrupt()]), "api", classifier) is None
