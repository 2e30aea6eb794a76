"""RESULTS.md: a section a benchmark, headed by when and on what machine it ran."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
_HEAD = """# What the benchmarks found

Written by the programs in this folder: `python -m tests.benchmarks.<name>` writes its section anew.
"""


def machine(folder: Path, packages: Iterable[str]) -> str:
    """Return two lines about date, machine and versions; `folder` is where the benchmark keeps its files."""
    hardware = [
        datetime.now(UTC).date().isoformat(),
        f"{_cpu()}, {os.cpu_count()} cores",
        f"{platform.system()} {platform.release()}",
        _file_system(folder),
    ]
    versions = [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    versions += [f"{package} {version(package)}" for package in packages]
    return f"{'; '.join(hardware)}  \n{', '.join(versions)}"


def write_section(title: str, body: str, path: Path = RESULTS) -> None:
    """Put a section into the file, in place of the one of the same title; other sections stay as they are."""
    text = path.read_text() if path.exists() else _HEAD
    section = f"## {title}\n\n{body.strip()}\n"
    found = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if found.search(text):
        path.write_text(found.sub(lambda _: section + "\n", text).rstrip() + "\n")
    else:
        path.write_text(f"{text.rstrip()}\n\n{section}")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _file_system(folder: Path) -> str:
    """Return the type of the file system that a folder is on."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "file system unknown"
    inside = [(len(point), kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(inside)[1]
