"""What happens to which request, said beforehand in plain values: by number, by chance, or in a span of time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields

from tidegate.resilience.faults.behaviours import FAULTS, Behaviour, all_checked, checked


@dataclass(frozen=True, slots=True)
class During:
    """From `start` to before `end`, in seconds after the schedule began, every request meets this behaviour."""

    start: float
    end: float
    behaviour: Behaviour = 503

    def __post_init__(self) -> None:
        if not self.start < self.end:
            raise ValueError(f"{self!r} never comes: the end is after the start")
        checked(self.behaviour)


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
        for name in ("script", "faults"):
            object.__setattr__(self, name, all_checked(getattr(self, name)))
        object.__setattr__(self, "outages", tuple(self.outages))
        for outage in self.outages:
            if not isinstance(outage, During):
                raise TypeError(f"{outage!r} is no outage; give During(start, end)")
        checked(self.then)
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
