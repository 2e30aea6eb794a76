"""A benchmark as a program: its options, what it prints, its section of RESULTS.md and its exit code."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from tests.benchmarks.results import write_section

_Plan = TypeVar("_Plan")


def run(
    title: str, doc: str | None, benchmark: Callable[[_Plan, Path], tuple[bool, str]], *, full: _Plan, quick: _Plan
) -> int:
    """Run a benchmark, which says whether all held, and its report in Markdown; return 1 if a target is not held."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="all code, small, no verdict, RESULTS.md untouched")
    parser.add_argument("--folder", type=Path, help="where to keep files meanwhile: on the disk to be measured")
    arguments = parser.parse_args()
    with TemporaryDirectory(dir=arguments.folder, prefix="tidegate-benchmark-") as folder:
        held, report = benchmark(quick if arguments.quick else full, Path(folder))
    print(report)
    if arguments.quick:
        return 0
    write_section(title, report)
    return int(not held)
