"""Which process it is, so that others on its machine can tell whether it still lives."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_STATE, _STARTED = 0, 19  # fields of /proc/PID/stat, counted from behind the name: proc(5) calls them 3 and 22


@dataclass(frozen=True, slots=True)
class Owner:
    """A process. Its start time tells it from a later one of the same PID.

    `boot` and `pid_namespace` say among which processes `pid` is unique: containers on one machine share a boot ID, but
    have PIDs of their own. All three are empty where the system does not tell them (it has no `/proc`).
    """

    host: str
    boot: str
    pid_namespace: str
    pid: int
    started: str

    @classmethod
    def current(cls) -> Owner:
        """Return this process."""
        pid = os.getpid()
        started = _started(pid) or ""
        return cls(socket.gethostname(), _boot(), _pid_namespace(), pid, started)

    def is_dead(self) -> bool:
        """Whether the process is known to have ended; one that cannot be seen from here may live."""
        if not self.started or (self.boot, self.pid_namespace) != (_boot(), _pid_namespace()):
            return False
        started = _started(self.pid)
        return not _is_hidden(self.pid) if started is None else started != self.started


def _started(pid: int) -> str | None:
    """Return when a process started, in ticks since boot; None if there is none, or it has ended and is a zombie."""
    try:
        # The name, in parentheses, may hold spaces and parentheses itself.
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[_STATE] in "ZX" else fields[_STARTED]


def _is_hidden(pid: int) -> bool:
    """Whether there may be such a process all the same: /proc can be set up to hide those of other users."""
    if (_PROC / str(pid)).exists():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return str((_PROC / "self/ns/pid").readlink())
    except OSError:
        return ""
