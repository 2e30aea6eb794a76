"""Message brokers of our own, from the installed programs: `python -m tests.servers.brokers COMMAND...`.

Runs the command with the URLs of a RabbitMQ, a NATS and a Redis in TIDEGATE_TEST_RABBITMQ, TIDEGATE_TEST_NATS and
TIDEGATE_TEST_REDIS, but for those that name one already. What is not installed is left out, and its tests are skipped
with the reason.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

RABBITMQ, NATS, REDIS = "TIDEGATE_TEST_RABBITMQ", "TIDEGATE_TEST_NATS", "TIDEGATE_TEST_REDIS"
"""The URLs of brokers that tests may make queues in."""

_RABBITMQ_PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the one in the path is a script that changes the user


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


class Server:
    """A program that listens on a port of its own; it is stopped and started again over the same data."""

    program = ""
    patience = 10.0
    question, answer = b"", b"INFO"  # NATS greets with it

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[Any] | None = None

    @classmethod
    def found(cls) -> str | None:
        return shutil.which(cls.program)

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def command(self) -> list[str]:
        raise NotImplementedError

    @property
    def environment(self) -> Mapping[str, str]:
        return {}

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + self.patience
        while not self._answers():
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.program} stopped at once")
            if time.monotonic() > until:
                self.stop(signal.SIGKILL)
                raise RuntimeError(f"{self.program} does not answer")
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it, and all processes that it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, how)
            self._process.wait(30)
            self._process = None

    def _answers(self) -> bool:
        """Whether it greets, or answers the one line that makes it."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(self.question)
                return connection.recv(len(self.answer)).startswith(self.answer)
        except OSError:
            return False


class Redis(Server):
    program = "redis-server"
    question, answer = b"PING\r\n", b"+PONG"  # an error while it loads its data

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def command(self) -> list[str]:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--appendonly", "yes", "--save", ""]
        return [self.program, *options, "--dir", str(self.folder)]


class Nats(Server):
    program = "nats-server"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.more = ["-js", "-sd", str(folder)]

    @classmethod
    def found(cls) -> str | None:
        return shutil.which(cls.program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def command(self) -> list[str]:
        return [self.found() or self.program, "-a", "127.0.0.1", "-p", str(self.port), *self.more]


class RabbitMQ(Server):
    program = _RABBITMQ_PROGRAM
    patience = 60.0
    question, answer = b"GET / HTTP/1.1\r\n\r\n", b"AMQP"  # it answers with the version that it speaks

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._epmd, self._peers = free_port(), free_port()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def command(self) -> list[str]:
        return [self.program]

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "HOME": str(self.folder),  # where Erlang keeps the cookie
            "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"tidegate{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._peers),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "none"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none",
        }

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it, and the daemon that tells the ports of Erlang's nodes, which it leaves."""
        super().stop(how)
        epmd = shutil.which("epmd")
        if epmd:
            subprocess.run([epmd, "-port", str(self._epmd), "-kill"], check=False, capture_output=True)


SERVERS: Mapping[str, type[Server]] = {RABBITMQ: RabbitMQ, NATS: Nats, REDIS: Redis}


@contextmanager
def serving(kind: Callable[[Path], Server]) -> Iterator[Server]:
    """Start a server, and stop and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-broker-"))
    server = kind(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main(command: list[str]) -> int:
    """Run a command beside the brokers; return its exit code."""
    with ExitStack() as stack:
        urls = {
            variable: stack.enter_context(serving(kind)).url
            for variable, kind in SERVERS.items()
            if not os.environ.get(variable) and kind.found()
        }
        return subprocess.run(command, check=False, env={**os.environ, **urls}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
