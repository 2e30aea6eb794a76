"""A PostgreSQL server of our own, from the installed programs: `python -m tests.servers.postgres COMMAND...`.

Runs the command with the server's URL in TIDEGATE_TEST_POSTGRES, unless that names one already. Where no programs are
installed the command runs without, and its tests are skipped with the reason.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

POSTGRES = "TIDEGATE_TEST_POSTGRES"
"""The URL of a PostgreSQL server that tests may create schemas in."""


def programs() -> Path | None:
    """Return the folder of the newest server's programs, None where none is installed."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    found = str(versions[-1]) if versions else shutil.which("postgres")
    return Path(found).parent if found and Path(found).with_name("initdb").exists() else None


class Server:
    """A server in a folder of its own, reached by a socket there; its data need not outlive the machine."""

    def __init__(self, folder: Path, bin_: Path) -> None:
        self.folder = folder
        self._bin = bin_
        self._process: subprocess.Popen[Any] | None = None
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # which the server refuses to run as
            names = {entry.pw_name for entry in pwd.getpwall()}
            entry = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            os.chown(folder, entry.pw_uid, entry.pw_gid)
            self._as = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        options = ["-A", "trust", "-U", "tidegate", "-E", "UTF8", "--no-locale", "--no-sync"]
        self._run([bin_ / "initdb", "-D", folder / "data", *options])

    @property
    def url(self) -> str:
        return f"postgresql://tidegate@/postgres?host={self.folder}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self.folder}", "-c", "fsync=off"]
        command = [str(self._bin / "postgres"), "-D", str(self.folder / "data"), *options]
        process: subprocess.Popen[Any] = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._as
        )
        self._process = process
        ready = [str(self._bin / "pg_isready"), "-h", str(self.folder), "-d", "postgres", "-q"]
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError("the server stopped at once")
            if subprocess.run(ready, check=False).returncode == 0:
                return
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        raise RuntimeError("the server does not answer")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it; SIGINT ends every connection at once and in order, SIGQUIT as a crash would."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def _run(self, command: list[Any]) -> None:
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, **self._as)


@contextmanager
def serving() -> Iterator[Server | None]:
    """Start a server of our own, and stop and remove it at the end; None where no programs are installed."""
    bin_ = programs()
    if bin_ is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="tidegate-postgres-"))
    server = Server(folder, bin_)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main(command: list[str]) -> int:
    """Run a command beside a server; return its exit code."""
    if os.environ.get(POSTGRES):
        return subprocess.run(command, check=False).returncode
    with serving() as server:
        more = {POSTGRES: server.url} if server else {}
        return subprocess.run(command, check=False, env={**os.environ, **more}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
