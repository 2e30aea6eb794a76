"""Three documents, watched in Arize Phoenix: `make trace-demo`, which installs it, or `python demo.py PYTHON`.

PYTHON is the one that Phoenix is installed for. One document goes through, one meets an outage and is healed, one is
killed and resumed; then Phoenix stays until Ctrl-C. All of it is on 127.0.0.1, and in a temporary folder.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from tidegate.cli.outage.documents import DOCUMENTS
from tidegate.resilience.faults import Delay, FaultyServer

HEALTHY, OUTAGE, KILLED = "seed-library", "tide-mill", "night-trains"
FAILURES = (200, 503, 200, 503, 503, 503)  # one is outlasted by trying again, three in a row open the circuit
RESET_TIMEOUT = 2.0
START_UP = 120.0
PROJECT = "tidegate"


class Demo:
    """One showing: the commands that a user would type, each in a process of its own."""

    def __init__(self, folder: Path, service: FaultyServer, phoenix: str) -> None:
        """Keep documents and threads in the folder, look names up at the service, and send the traces to Phoenix."""
        self.commands: list[str] = []
        """What was run, in order: each made one trace."""
        self._folder = folder
        self._service = service
        others = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEGATE_", "OTEL_"))}
        self._environ = others | {
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": phoenix,
            "OTEL_METRICS_EXPORTER": "none",  # Phoenix takes traces alone
            "OTEL_RESOURCE_ATTRIBUTES": f"openinference.project.name={PROJECT}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",  # milliseconds, not 1000: what a killed run did last is seen too
            "TIDEGATE_RECOGNISER": "rules",
            "TIDEGATE_ENRICHMENT__ADAPTER": "http",
            "TIDEGATE_ENRICHMENT__URL": f"{service.url}/names",
            "TIDEGATE_ENRICHMENT__CONCURRENCY": "1",
            "TIDEGATE_ENRICHMENT__RESET_TIMEOUT": str(RESET_TIMEOUT),
        }

    def show(self) -> None:
        """Run the three documents."""
        print("\n1. A document goes through.", flush=True)
        self._finish(*self._run(HEALTHY))

        print("\n2. The service of names fails: tried again, then the graph goes around it, and is healed.", flush=True)
        self._service.follow(FAILURES)
        self._finish(*self._run(OUTAGE))
        time.sleep(RESET_TIMEOUT)
        self._finish("backfill")

        print("\n3. The process is killed (SIGKILL) as it looks names up, and another goes on.", flush=True)
        self._service.follow([200, 200, Delay(60.0)])
        asked = len(self._service.requests) + 3
        with self._start(*self._run(KILLED)) as process:
            self._service.wait_for(asked)
            time.sleep(0.5)  # for the last batch of spans
            process.kill()
        self._service.follow(())
        self._finish("resume", KILLED)

    def _run(self, name: str) -> tuple[str, ...]:
        document = self._folder / f"{name}.txt"
        document.write_text(DOCUMENTS[name])
        return ("run", document.name, "--thread-id", name)

    def _finish(self, *arguments: str) -> None:
        with self._start(*arguments) as process:
            if process.wait() != 0:
                raise SystemExit(f"trace-demo: tidegate {' '.join(arguments)} exited with {process.returncode}")

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        self.commands.append(" ".join(("tidegate", *arguments)))
        print(f"$ {self.commands[-1]}", flush=True)
        command = [sys.executable, "-m", "tidegate", *arguments]
        return subprocess.Popen(command, cwd=self._folder, env=self._environ, stdout=subprocess.DEVNULL)  # noqa: S603


@contextmanager
def phoenix(python: str, folder: Path) -> Iterator[str]:
    """Start Phoenix, and yield its address; what it stores and says is in the folder."""
    port, grpc_port = free_ports(2)
    others = {name: value for name, value in os.environ.items() if not name.startswith(("PHOENIX_", "OTEL_"))}
    ours = {
        "PHOENIX_PORT": port,
        "PHOENIX_GRPC_PORT": grpc_port,
        "PHOENIX_WORKING_DIR": str(folder),
        "TMPDIR": str(folder),
    }
    command = [python, str(Path(__file__).with_name("private_phoenix.py"))]
    address, log = f"http://127.0.0.1:{port}", folder / "phoenix.log"
    with log.open("wb") as said:
        # A session of its own: Ctrl-C ends the demo, and the demo ends Phoenix.
        process = subprocess.Popen(  # noqa: S603
            command, env=others | ours, stdout=said, stderr=said, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_UP
        while not answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"trace-demo: Phoenix does not start; it said:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10.0)
        process.kill()
        process.wait()


def free_ports(count: int) -> list[str]:
    """Return ports of 127.0.0.1 that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [str(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def get(url: str) -> bytes:
    """Return what a server on this machine answers, whatever proxy there is."""
    with build_opener(ProxyHandler({})).open(url, timeout=5.0) as response:
        content: bytes = response.read()
    return content


def answers(address: str) -> bool:
    """Whether a server answers there."""
    try:
        get(f"{address}/healthz")
    except OSError:
        return False
    return True


def traces(address: str, count: int) -> list[str]:
    """Return the IDs of so many traces, the first first, once Phoenix has stored them."""
    for _ in range(100):
        with suppress(HTTPError):  # there is no such project before its first span
            listed = json.loads(get(f"{address}/v1/projects/{PROJECT}/traces?sort=start_time&order=asc&limit=100"))
            if len(listed["data"]) >= count:
                return [trace["trace_id"] for trace in listed["data"]]
        time.sleep(0.2)
    raise SystemExit(f"trace-demo: {count} traces were sent to Phoenix, and it does not show them")


def main(python: str) -> None:
    """Show it, print the links, and stay."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # a terminal that is closed leaves nothing behind either
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        with tempfile.TemporaryDirectory(prefix="tidegate-traces-") as folder:
            print("Starting Arize Phoenix on 127.0.0.1, with nothing that leaves this machine.", flush=True)
            with phoenix(python, Path(folder)) as address, FaultyServer(answer=lambda _: {"known": True}) as service:
                demo = Demo(Path(folder), service, address)
                demo.show()
                print(f"\nOpen {address}/redirects/projects/{PROJECT} for all of them, or one trace:")
                for command, trace in zip(demo.commands, traces(address, len(demo.commands)), strict=False):
                    print(f"  {command:<55} {address}/redirects/traces/{trace}")
                print("Ctrl-C ends it.", flush=True)
                signal.pause()
    except KeyboardInterrupt:
        print("\ntrace-demo: ended; nothing is left behind", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main(sys.argv[1])
