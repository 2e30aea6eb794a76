"""Signatures of Standard Webhooks: HMAC-SHA256 over ID, time and body, which the headers of a message hold.

The package `standardwebhooks` signs texts (`tidegate.sinks.webhook`). It cannot verify a body that is no UTF-8, as no
PDF is, and asks the machine for the time (1.1.0). What both say of each other's signatures is tested.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence

from pydantic import SecretStr

from tidegate.errors import SettingsError
from tidegate.store.clock import Clock

TOLERANCE = 300.0
"""Seconds by which the time of a message may differ from ours, as the specification recommends."""

_SHORTEST = 16
_MOST_SIGNATURES = 20
_TIME = re.compile(r"[0-9]{1,12}")
_AMBIGUOUS = re.compile(r"\.[0-9]+$")


class SignatureError(Exception):
    """A message is not signed by who may, or not now. The message says which header to look at, and quotes nothing."""


class Signatures:
    """Verifies messages that were signed with one of several secrets: while they are changed, two count."""

    def __init__(self, secrets: Sequence[SecretStr], *, where: str, clock: Clock, tolerance: float = TOLERANCE) -> None:
        """Take secrets as `whsec_` and base64; `where` names the setting.

        Raises:
            SettingsError: one is none, or too short to keep anybody out.
        """
        self._keys = [key_of(secret.get_secret_value(), where) for secret in secrets]
        self._clock = clock
        self._tolerance = tolerance

    def verify(self, headers: Mapping[str, str], body: bytes) -> str:
        """Return the ID of a message; `headers` are named in lower case.

        Raises:
            SignatureError: it is not signed with any of the secrets, or at another time than now.
        """
        message_id, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not message_id:
            raise SignatureError("webhook-id is missing; sign the message as https://www.standardwebhooks.com says")
        if _AMBIGUOUS.search(message_id):
            # `a.1` at 2 is signed over the same bytes as `a` at 1 with a body that begins with `2.`.
            raise SignatureError("webhook-id ends with a dot and a number; give the message another ID")
        if _TIME.fullmatch(at) is None:
            raise SignatureError("webhook-timestamp is missing, or not in whole seconds since 1970")
        if abs(self._clock.now() - int(at)) > self._tolerance:
            raise SignatureError(f"webhook-timestamp is more than {self._tolerance:g} s from now; is a clock wrong?")
        signed = b".".join((message_id.encode("utf-8", "surrogateescape"), at.encode(), body))
        expected = [hmac.new(key, signed, hashlib.sha256).digest() for key in self._keys]
        found = False
        for given in headers.get("webhook-signature", "").split()[:_MOST_SIGNATURES]:
            version, _, text = given.partition(",")
            signature = _decoded(text) if version == "v1" else None
            for each in expected:
                found |= signature is not None and hmac.compare_digest(each, signature)
        if not found:
            raise SignatureError("webhook-signature is missing, or none of our secrets gives it")
        return message_id


def key_of(secret: str, where: str) -> bytes:
    """Return the key that a secret is; `where` names the setting.

    Raises:
        SettingsError: it is no secret, or too short to keep anybody out.
    """
    key = _decoded(secret.removeprefix("whsec_"))
    if key is None or len(key) < _SHORTEST:
        raise SettingsError(
            f"{where}: a secret is no whsec_ with base64 of at least {_SHORTEST} bytes; make one by "
            "`openssl rand -base64 24`, and put whsec_ before it"
        )
    return key


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
