"""What happens to which request, said beforehand in plain values: by number, by chance, or in a span of time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Delay:
    """The answer, `seconds` late."""

    seconds: float


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """A refusal that asks for a pause of `seconds`, as a number or, with `as_date`, as an HTTP date (RFC 9110)."""

    seconds: float
    as_date: bool = False
    status: int = 429


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


Behaviour: TypeAlias = (
    int
    | Literal[
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
    | Delay
    | RetryAfter
    | Reply
)
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


@dataclass(frozen=True, slots=True)
class During:
    """From `start` to before `end`, in seconds after the schedule began, every request meets this behaviour."""

    start: float
    end: float
    behaviour: Behaviour = 503


@dataclass(frozen=True, slots=True, repr=False)
class Schedule:
    """What happens to each request. Equal schedules do the same, and the `repr` is the code that makes one anew.

    The spans of `outages` come first. Outside of them the first requests meet `script`, one each, in order; those
    after it meet, with a `seed`, one of `faults` with the probability `rate`, and `then` otherwise. What chance brings
    the n-th request depends on the seed and on n alone, not on which task or process sends it.
    """

    script: Sequence[Behaviour] = ()
    then: Behaviour = 200
    outages: Sequence[During] = ()
    seed: int | None = None
    rate: float = 0.5
    faults: Sequence[Behaviour] = FAULTS

    def __post_init__(self) -> None:
        for name in ("script", "outages", "faults"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not 0.0 <= self.rate <= 1.0:
            raise ValueError(f"a rate of {self.rate:g} is no probability; it is between 0 and 1")

    def at(self, number: int, seconds: float) -> Behaviour:
        """Say what happens to a request: its number, 1 for the first, and when it comes, in seconds from the start."""
        for outage in self.outages:
            if outage.start <= seconds < outage.end:
                return outage.behaviour
        if number <= len(self.script):
            return self.script[number - 1]
        if self.seed is not None and self.faults:
            chance = random.Random(f"{self.seed}/{number}")  # noqa: S311 - not for secrets
            if chance.random() < self.rate:
                return self.faults[int(chance.random() * len(self.faults))]
        return self.then

    def __repr__(self) -> str:
        values = ((each.name, getattr(self, each.name), each.default) for each in fields(self))
        said = (f"{name}={value!r}" for name, value, default in values if value != default)
        return f"Schedule({', '.join(said)})"
