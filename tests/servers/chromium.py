"""A headless Chromium, driven by the DevTools protocol over a pipe: no driver, no port and no package is needed."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

PLUMBING = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for place, end in enumerate(ends, 3):
    os.dup2(end, place)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""What puts two pipes where the browser expects the protocol's: descriptors 3 and 4."""


def program() -> str | None:
    """Return the path of a Chromium that is installed."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Page:
    """One page of a browser."""

    def __init__(self, requests: int, replies: int) -> None:
        """Talk to the browser by these two ends of pipes: messages are JSON, each ended by a NUL."""
        self.addresses: list[str] = []
        """Whatever the page has asked the network for."""
        self._requests = requests
        self._replies = replies
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Network.enable")

    def open(self, address: str) -> None:
        """Begin to load."""
        self._call("Page.navigate", url=address)

    def size(self, width: int, height: int) -> None:
        """Set the size of the page in pixels."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def evaluate(self, expression: str) -> Any:
        """Return the JSON value of a JavaScript expression."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self) -> str:
        """Return the text that can be seen."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def wait_until(self, expression: str, seconds: float = 60.0) -> Any:
        """Return the value of a JavaScript expression as soon as it is true."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {expression}\n{self.text()}"
            time.sleep(0.1)
        return value

    def screenshot(self, path: Path, selector: str) -> None:
        """Save what can be seen of an element, as a PNG."""
        x, y, width, height = self.evaluate(
            f"(({{x, y, width, height}}) => [x, y, width, height])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        clip = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png", clip=clip)["data"]))

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._requests, json.dumps(message).encode() + b"\0")
        while (reply := self._message()).get("id") != self._number:
            if reply.get("method") == "Network.requestWillBeSent":
                self.addresses.append(reply["params"]["request"]["url"])
        assert "error" not in reply, f"{method}: {reply['error']}"
        return reply["result"]

    def _message(self) -> Any:
        while b"\0" not in self._buffer:
            assert select.select([self._replies], [], [], 60.0)[0], "the browser does not answer"
            part = os.read(self._replies, 1 << 20)
            assert part, "the browser has gone"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@contextmanager
def page(chromium: str, profile: Path) -> Iterator[Page]:
    """Start a browser with a profile of its own, and yield its page."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    command = [
        chromium,
        "--headless=new",
        "--no-sandbox",  # which root cannot have; the one page that is opened is ours
        "--disable-gpu",
        "--disable-dev-shm-usage",  # 64 MB in a container
        "--disable-background-networking",
        "--no-first-run",
        "--no-proxy-server",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
        "--remote-debugging-pipe",
        "about:blank",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", PLUMBING, str(theirs_in), str(theirs_out), *command],
        pass_fds=(theirs_in, theirs_out),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Page(ours_out, ours_in)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(ours_out)
        os.close(ours_in)
