"""What this process has used so far: CPU, bytes written, fsyncs."""

from __future__ import annotations

import ctypes
import operator
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_PRELOADED = "BENCHMARK_COUNTS_FSYNCS"

_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>

static atomic_long calls;

long counted_fsyncs(void) { return atomic_load(&calls); }

static int counted(const char *name, int descriptor) {
    int (*next)(int) = dlsym(RTLD_NEXT, name);
    atomic_fetch_add(&calls, 1);
    return next(descriptor);
}

int fsync(int descriptor) { return counted("fsync", descriptor); }
int fdatasync(int descriptor) { return counted("fdatasync", descriptor); }
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """Totals since the process began; subtract two to have what lies between them.

    `cpu` is user and system seconds of all threads. `written` is bytes sent towards the disk, None without /proc.
    `fsyncs` counts fsync and fdatasync, None unless the program runs under `counting_fsyncs`.
    """

    cpu: float
    written: float | None
    fsyncs: float | None

    def __sub__(self, earlier: Usage) -> Usage:
        return self._with(operator.sub, earlier)

    def __add__(self, other: Usage) -> Usage:
        return self._with(operator.add, other)

    def __truediv__(self, parts: float) -> Usage:
        return self._with(operator.truediv, Usage(parts, parts, parts))

    def _with(self, do: Callable[[float, float], float], other: Usage) -> Usage:
        return Usage(
            do(self.cpu, other.cpu),
            None if self.written is None or other.written is None else do(self.written, other.written),
            None if self.fsyncs is None or other.fsyncs is None else do(self.fsyncs, other.fsyncs),
        )


def usage() -> Usage:
    """Read the counters."""
    fsyncs = int(ctypes.CDLL(None).counted_fsyncs()) if os.environ.get(_PRELOADED) == "yes" else None
    return Usage(time.process_time(), _written(), fsyncs)


def counting_fsyncs() -> None:
    """Run this program again with its fsyncs counted, and exit as it did; return at once if that is done already.

    A shim of 15 lines is compiled and preloaded. Unlike strace or eBPF it needs no right that a container withholds,
    slows nothing down, and can be read between two runs; its counts equal those of `strace -e trace=fsync,fdatasync`.
    Where there is no C compiler, or the libraries are linked statically, fsyncs are not counted.
    """
    if _PRELOADED in os.environ:
        return
    with tempfile.TemporaryDirectory() as folder:
        shim = Path(folder) / "fsyncs.so"
        counted = _compile(shim)
        environ = os.environ | {_PRELOADED: "yes" if counted else "no"}
        if counted:
            environ["LD_PRELOAD"] = f"{shim} {os.environ.get('LD_PRELOAD', '')}".strip()
        code = subprocess.run([sys.executable, *sys.orig_argv[1:]], env=environ, check=False).returncode
    sys.exit(code)


def _compile(shim: Path) -> bool:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        return False
    source = shim.with_suffix(".c")
    source.write_text(_SHIM)
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(shim), str(source), "-ldl"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        return False
    program = "import ctypes, os, tempfile; f = tempfile.TemporaryFile(); os.fsync(f.fileno()); "
    program += "raise SystemExit(ctypes.CDLL(None).counted_fsyncs() != 1)"
    environ = os.environ | {"LD_PRELOAD": str(shim)}
    return (
        subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, check=False).returncode == 0
    )


def _written() -> int | None:
    try:
        counters = Path("/proc/self/io").read_text()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in counters.splitlines() if line.startswith("write_bytes:"))
