"""How many branches the tests take, package by package: `python -m tests.tools.branches`, after `coverage combine`.

Exits with 1 where a package, or all of them together, is below `REQUIRED`. The figure that `coverage report` prints
counts lines in, and is higher.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import PurePath

import coverage

REQUIRED = 95.0
"""Per cent."""


def main() -> int:
    """Print the table and the lines that were not reached; return the exit code."""
    measured = coverage.Coverage()
    measured.load()
    found, taken = Counter[str](), Counter[str]()
    for file in sorted(measured.get_data().measured_files()):
        numbers = measured._analyze(file).numbers
        if numbers.n_branches > numbers.n_executed_branches:
            print(f"{PurePath(file).parent.name}/{PurePath(file).name}: lines {measured.analysis(file)[3]}")
        for package in (PurePath(file).parent.name, "together"):
            found[package] += numbers.n_branches
            taken[package] += numbers.n_executed_branches
    per_cent = {package: 100 * taken[package] / found[package] for package in found}
    for package, value in per_cent.items():
        print(f"{package:<14} {taken[package]:>4} of {found[package]:>4} branches  {value:.1f} %")
    return int(not per_cent or min(per_cent.values()) < REQUIRED)


if __name__ == "__main__":
    sys.exit(main())
