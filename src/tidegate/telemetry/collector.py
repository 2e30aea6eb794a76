"""The collector as exporters meet it: what is wrong with it is said once, and it can do no harm."""

from __future__ import annotations

import logging
from threading import Lock
from typing import Any, Final
from urllib.parse import urlsplit

import requests

LOGGER: Final = "tidegate.telemetry"

_BROKEN = 500  # statuses from here on are the server's fault, whatever it is asked
_READ: Final = 64 * 1024
"""Bytes of an answer that are read, so that its connection can be used again; it usually has none."""

_log = logging.getLogger(LOGGER)


class Complaints:
    """What is wrong with the collector, each thing said once, whichever exporter meets it first."""

    def __init__(self) -> None:
        """Begin with nothing to complain about."""
        self._said: set[str] = set()
        self._lock = Lock()

    def say(self, problem: str) -> None:
        """Log the problem, unless that was done before."""
        with self._lock:
            known = problem in self._said
            self._said.add(problem)
        if not known:
            _log.warning("telemetry is lost, nothing else is affected: %s", problem)


class Collector(requests.Session):
    """The HTTP session of one exporter, which knows what is wrong with the collector."""

    def __init__(self, complaints: Complaints) -> None:
        """Complain here."""
        super().__init__()
        self._complaints = complaints
        self._problem = ""

    def request(self, method: str, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request and remember what was wrong with it, if anything was.

        Redirects are not followed, for the headers may hold a key; of the answer no more than its beginning is read.
        """
        address = urlsplit(str(url))
        where = address.netloc.rpartition("@")[2] or "the collector"  # without credentials
        self._problem = self._problem or f"{where} does not answer"
        kwargs |= {"allow_redirects": False, "stream": True}
        try:
            response = super().request(method, url, *args, **kwargs)
            if len(response.raw.read(_READ)) == _READ:
                response.close()
        except Exception as error:
            self._problem = f"{where} does not answer ({type(error).__name__})"
            if isinstance(error, (requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema)):
                self._problem = "the collector's address needs http:// or https:// before it"
            raise
        accepted = response.status_code < 300
        # One that is broken is told of once; a path that it does not have is that signal's own.
        asked = "" if response.status_code >= _BROKEN else f" to {address.path}"
        self._problem = "" if accepted else f"{where} answers {response.status_code}{asked}"
        if response.ok and not accepted:
            raise requests.TooManyRedirects(self._problem)  # the SDK would count it as a success
        return response

    def gave_up(self) -> None:
        """Say why something was not sent."""
        self._complaints.say(self._problem or "there was not enough time to send it")


def heed(complaints: Complaints) -> None:
    """Have what the SDK logs become complaints, or be left out: it reports every batch, and the headers as they are."""

    def dropped(record: logging.LogRecord) -> bool:
        if "Queue full" in str(record.msg):
            complaints.say("the collector takes too long, and some was dropped")
            return False
        return record.levelno >= logging.ERROR

    def unreadable(record: logging.LogRecord) -> bool:
        record.args = ("(not shown)",)
        return True

    logging.getLogger("opentelemetry.util.re").addFilter(unreadable)
    processors = logging.getLogger("opentelemetry.sdk._shared_internal")
    processors.setLevel(logging.WARNING)
    processors.addFilter(dropped)
