"""What went wrong, sorted once: HTTP statuses and `Retry-After` -> the service errors of `tidegate.errors`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TypeAlias
from urllib.parse import urljoin, urlsplit

from tidegate.errors import InProgress, NotFound, Permanent, RateLimited, Refused, ServiceError, Transient
from tidegate.store.clock import Clock

Classify: TypeAlias = Callable[[BaseException], ServiceError | None]
"""Says which failure of the service an exception is; None for one that is no failure of the service, as a bug is."""

_REFUSED = frozenset({401, 403, 407})
_TRANSIENT = frozenset({408, 425})
_GONE = frozenset({404, 410})
_NUMBERS = re.compile(r"(\s*[+-]?[0-9]++(\.[0-9]*+)?\s*(,(?!$)|$))+")  # fractions are against the RFC too
_LONGEST_PAUSE = 86400.0
_BY_GRAVITY: tuple[type[ServiceError], ...] = (Transient, RateLimited, NotFound, Permanent, Refused, ServiceError)


def from_status(
    service: str, status: int, headers: Mapping[str, str], clock: Clock, *, keyed: bool = False, away: bool = False
) -> ServiceError:
    """Return the failure that an HTTP answer of this status is; `keyed` if the request had an `Idempotency-Key`.

    `away` says that it redirects to another host (`leads_away`). That is `Refused`: a gateway sends everybody to its
    login or to a page about maintenance, and no request is at fault.

    409 in answer to a key says that a request with it is still being carried out (draft-ietf-httpapi-idempotency-key).

    410 is `NotFound` as 404 is: the service knows the thing, and that it is no more. Any other redirect
    that got this far is `Permanent`: it was not to be followed, and the same request brings the same redirect; so is a
    1xx as the last word. A status over 599 counts as a 5xx (RFC 9110, section 15).

    Raises:
        ValueError: a 2xx is no failure; what is wrong with its body is the caller's to say.
    """
    if 200 <= status <= 299:
        raise ValueError(f"{service} answered {status}, which is no failure")
    problem = f"answered {_phrase(status)}"
    pause = retry_after(headers, clock)
    if status == HTTPStatus.TOO_MANY_REQUESTS or (status == HTTPStatus.SERVICE_UNAVAILABLE and pause is not None):
        return RateLimited(service, problem, retry_after=pause)
    if away and 300 <= status <= 399:
        return Refused(service, f"{problem}, to another host, as to a login; check the address and the credentials")
    if status in _REFUSED:
        return Refused(service, f"{problem}; check the credentials")
    if status in _GONE:
        return NotFound(service, problem)
    if status == HTTPStatus.CONFLICT and keyed:
        return InProgress(service, problem)
    if status in _TRANSIENT or status >= 500:
        return Transient(service, problem)
    return Permanent(service, problem)


def leads_away(asked: str, headers: Mapping[str, str]) -> bool:
    """Say whether `Location` names another host than the address that was asked for. A host's ports are one host."""
    location = next((value for name, value in headers.items() if name.lower() == "location"), "")
    try:
        here, there = urlsplit(asked).hostname, urlsplit(urljoin(asked, location)).hostname
    except ValueError:  # an address that cannot be read
        return False
    return there is not None and there != here


def retry_after(headers: Mapping[str, str], clock: Clock) -> float | None:
    """Return the seconds that `Retry-After` asks to wait (RFC 9110, section 10.2.3), None if it says nothing usable.

    Reads seconds and all three forms of HTTP dates. A date that is past, or a negative number, is 0.0; what is over
    a day is a day, since nobody lifts by hand what a slip, as milliseconds, put off. Of several numbers, which is what
    clients make of several headers, it is the largest.
    """
    value = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    value = value.partition(";")[0].strip()  # parameters are against the RFC, and are sent
    if _NUMBERS.fullmatch(value):
        seconds = max(float(number) for number in value.split(","))
    else:
        try:
            date = parsedate_to_datetime(value)
            seconds = date.replace(tzinfo=date.tzinfo or UTC).timestamp() - clock.now()
        except (ValueError, TypeError, IndexError, OverflowError):  # whatever a parser of dates trips over
            return None
    return min(max(seconds, 0.0), _LONGEST_PAUSE)


def failure_of(error: BaseException, service: str, classify: Classify) -> ServiceError | None:
    """Return which failure of `service` an exception is, None if it is none.

    A `ServiceError` that names the service is its own verdict. A group is the gravest of its failures, and none if one
    of its members is none.
    """
    if isinstance(error, ServiceError) and error.service == service:
        return error
    if not isinstance(error, ExceptionGroup):
        return classify(error)
    failures = [failure_of(member, service, classify) for member in error.exceptions]
    known = [failure for failure in failures if failure is not None]
    return max(known, key=_gravity) if len(known) == len(failures) else None


def _gravity(failure: ServiceError) -> tuple[int, float]:
    pause = failure.retry_after if isinstance(failure, RateLimited) else None
    return next(place for place, kind in enumerate(_BY_GRAVITY) if isinstance(failure, kind)), pause or 0.0


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
