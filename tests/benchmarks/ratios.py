"""Ratios of paired measurements: their median, how sure it is, and whether a target is held."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

MIN_PAIRS = 20
"""Fewest pairs that a verdict is given on."""

_RESAMPLES = 2_000
_Contender = TypeVar("_Contender")


@dataclass(frozen=True, slots=True)
class Ratio:
    """What was measured in pairs: ours over theirs, each pair from one round."""

    what: str
    pairs: tuple[float, ...]
    target: float | None = None
    """The ratio may be this at most; None where it is only told."""

    @property
    def median(self) -> float:
        """The median of the pairs; NaN where nothing was counted."""
        return statistics.median(self.pairs) if self.pairs else float("nan")

    @property
    def upper(self) -> float:
        """The upper 95 % bound of the median; NaN where nothing was counted."""
        return upper_bound(self.pairs) if self.pairs else float("nan")

    @property
    def held(self) -> bool | None:
        """Whether the upper bound is within the target; None without a target.

        A target that could not be measured, or in too few pairs, is not held.
        """
        if self.target is None:
            return None
        return len(self.pairs) >= MIN_PAIRS and self.upper <= self.target


def upper_bound(pairs: Sequence[float], confidence: float = 0.95) -> float:
    """Return what the true median is at most, with this confidence, by the percentile bootstrap.

    Of the median, not of the mean of logarithms: a pair that another program's load spoilt moves it by one rank however
    wrong it is, and a difference that noise made negative (saver CPU, where a saver costs almost nothing) has no
    logarithm. Seeded, so that equal measurements give equal verdicts.
    """
    chance = random.Random(len(pairs))  # noqa: S311 - resamples
    medians = sorted(statistics.median(chance.choices(pairs, k=len(pairs))) for _ in range(_RESAMPLES))
    return medians[min(int(confidence * _RESAMPLES), _RESAMPLES - 1)]


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value that this share of the values does not exceed; the nearest rank, so one that was measured.

    Raises:
        ValueError: there are no values.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values, no percentile")
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def turns(contenders: Sequence[_Contender], rounds: int, chance: random.Random) -> Iterable[list[_Contender]]:
    """Yield a list a round, with every contender once, in an order drawn anew: no one always follows the same other."""
    for _ in range(rounds):
        yield chance.sample(contenders, k=len(contenders))


def table(ratios: Iterable[Ratio]) -> str:
    """Return a Markdown table, a row a ratio."""
    rows = [
        (
            ratio.what,
            _share(ratio.target) if ratio.target is not None else "",
            _share(ratio.median) if ratio.pairs else "not counted",
            _share(ratio.upper) if ratio.pairs else "",
            str(len(ratio.pairs)),
            {None: "", True: "yes", False: "**no**"}[ratio.held],
        )
        for ratio in ratios
    ]
    return markdown(("ratio", "at most", "median", "upper 95 % bound", "pairs", "held"), rows)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table: the first column to the left, the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _share(value: float) -> str:
    return f"1/{1 / value:.1f}" if 0 < value < 0.5 else f"{value:.2f}"
