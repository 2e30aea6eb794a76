"""What a service does about one request, said in plain values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Literal, TypeAlias, cast, get_args

_MOST = 1_000_000
_LONGEST = 1e9  # seconds; clocks, dates and sleeps take no end of them
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2


def _check_status(said_in: object, status: object, *, at_least: int = 100) -> None:
    if not isinstance(status, int) or isinstance(status, bool) or not at_least <= status <= 999:
        raise ValueError(f"{said_in!r:.200}: a status is a number from {at_least} to 999")


def _check_seconds(said_in: object, seconds: object, *, instead: str, at_least: float = 0.0) -> None:
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not at_least <= seconds <= _LONGEST:
        raise ValueError(f"{said_in!r:.200}: seconds are from {at_least:g} to {_LONGEST:g}; {instead}")


def _is_header_value(value: str) -> bool:
    return not re.search(r"[\r\n\0]", value) and value.encode("latin-1", "replace").decode("latin-1") == value


@dataclass(frozen=True, slots=True)
class Delay:
    """The answer, `seconds` late."""

    seconds: float

    def __post_init__(self) -> None:
        _check_seconds(self, self.seconds, instead="'hang' never answers")


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """A refusal that asks for a pause of `seconds`, as a number or, with `as_date`, as an HTTP date (RFC 9110)."""

    seconds: float
    as_date: bool = False
    status: int = 429

    def __post_init__(self) -> None:
        _check_status(self, self.status, at_least=300)
        _check_seconds(self, self.seconds, at_least=-_LONGEST, instead="Reply(429, headers=…) sends any header")


@dataclass(frozen=True, slots=True)
class Reply:
    """Any answer at all. Without `body` or `json` it has the body of the healthy one.

    A header of None is left out. `cut` breaks off after so many bytes of the body; `every` sends a byte each so many
    seconds.
    """

    status: int = 200
    json: Any = None
    body: bytes | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    cut: int | None = None
    every: float | None = None

    def __post_init__(self) -> None:
        _check_status(self, self.status)
        if self.body is not None and not isinstance(self.body, bytes):
            raise TypeError(f"{self!r:.200}: a body is bytes; json=… sends a value as JSON")
        if self.body is None:
            json.dumps(self.json)  # raises a TypeError that names what is no JSON
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name) or (value is not None and not _is_header_value(value)):
                raise ValueError(f"the header {name!r}: {value!r} cannot be sent: names are ASCII, values ISO 8859-1")
        if self.cut is not None and not (type(self.cut) is int and self.cut >= 0):
            raise ValueError(f"{self!r:.200}: cut is a number of bytes, 0 or more")
        if self.cut is not None and self.body is not None and self.cut > len(self.body):
            raise ValueError(f"{self!r:.200}: the body ends before the cut, after {len(self.body)} bytes")
        if self.every is not None:
            _check_seconds(self, self.every, instead="'stall' stops for good")


Word: TypeAlias = Literal[
    "hang",
    "stall",
    "reset",
    "half body",
    "slow drip",
    "garbage",
    "wrong shape",
    "huge body",
    "redirect loop",
    "redirect away",
]
Behaviour: TypeAlias = int | Word | Delay | RetryAfter | Reply
"""What a service does about one request.

A number is the status to answer; 200 is the healthy answer. `hang`: no answer ever. `stall`: half of it, then nothing.
`reset`: the connection is reset before any of it. `half body`: it is closed after half of the body. `slow drip`: a byte
a second. `garbage`: a body that is no JSON. `wrong shape`: JSON that nobody asked for. `huge body`: 16 MiB, of a length
that is not declared. `redirect loop`: to the same address. `redirect away`: to another host, which does not exist.
"""

FAULTS: Final[tuple[Behaviour, ...]] = (
    400,
    401,
    500,
    503,
    "hang",
    "stall",
    "reset",
    "half body",
    "slow drip",
    "garbage",
    "wrong shape",
    "huge body",
    "redirect loop",
    "redirect away",
    Delay(1.0),
    RetryAfter(1.0),
    RetryAfter(1.0, as_date=True),
)
"""One of each kind."""


def checked(behaviour: object) -> Behaviour:
    """Return what is a behaviour: anything else would be taken for the healthy answer.

    Raises:
        ValueError, TypeError: it is none. The message says what there is.
    """
    if isinstance(behaviour, (Delay, RetryAfter, Reply)):
        return behaviour
    if isinstance(behaviour, str):
        if behaviour not in get_args(Word):
            raise ValueError(f"{behaviour!r} is no behaviour; there are {', '.join(map(repr, get_args(Word)))}")
        return cast("Word", behaviour)
    if isinstance(behaviour, int):
        _check_status(behaviour, behaviour)
        return behaviour
    raise TypeError(f"{behaviour!r} is no behaviour; give a status, a word such as 'hang', Delay, RetryAfter or Reply")


def all_checked(behaviours: Iterable[object]) -> tuple[Behaviour, ...]:
    """Return them all, each `checked`; a word alone is no list of letters, and a million are without end."""
    if isinstance(behaviours, (str, bytes)) or not isinstance(behaviours, Iterable):
        raise TypeError(f"{behaviours!r} is no script; give a list, as [503, 'hang'], or a Schedule")
    given: tuple[Behaviour, ...] = tuple(checked(each) for each in islice(behaviours, _MOST))
    if len(given) == _MOST:
        raise ValueError("the script seems to have no end; give Schedule(then=…), or a function of the request")
    return given
