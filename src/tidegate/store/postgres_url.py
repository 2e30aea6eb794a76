"""PostgreSQL URLs: read strictly, so that no message can show a password."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from tidegate.errors import SettingsError

FORM = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE?schema=tidegate"
SCHEMA = "tidegate"
"""The schema that holds our tables, and those of LangGraph's saver, apart from all others in the database."""

_PLAIN = r"[^:/?#@\[\]\s]"
_HOST = rf"(?:{_PLAIN}*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?"
_URL = re.compile(
    rf"postgres(?:ql)?://(?:{_PLAIN}*(?::(?P<password>{_PLAIN}*))?@)?(?P<hosts>{_HOST}(?:,{_HOST})*)"
    rf"(?:/(?P<database>{_PLAIN}*))?(?:\?(?P<options>[^?#@\s]*))?"
)
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """A database and a schema in it. `conninfo` is for libpq; `shown` is for messages, and its repr shows no secret."""

    shown: str
    schema: str
    conninfo: str = field(repr=False)
    passwords: tuple[str, ...] = field(repr=False)

    def hide(self, text: object) -> str:
        """Return a text of libpq's or the server's, in which nothing can be read that is secret."""
        line = " ".join(str(text).split())
        for password in self.passwords:
            whole = r"\b" if len(password) < 4 and password.isalnum() else ""  # else all text falls to a password `p`
            line = re.sub(f"{whole}{re.escape(password)}{whole}", "(hidden)", line)
        return line


def read_url(url: str) -> PostgresUrl:
    """Read a URL; nothing is opened.

    Raises:
        SettingsError: it cannot be read, or could be read in two ways, as one with an `@` in its password.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise SettingsError(
            f"cannot read the PostgreSQL URL; write it as {FORM}, with special characters of the password "
            "percent-encoded (@ as %40, / as %2F, : as %3A)"
        )
    options = [each for each in (match["options"] or "").split("&") if each]
    named = [unquote(each.partition("=")[2]) for each in options if each.partition("=")[0] == "schema"]
    rest = [each for each in options if each.partition("=")[0] != "schema"]
    schema = named[-1] if named else SCHEMA
    if not _NAME.fullmatch(schema) or schema.startswith("pg_"):
        raise SettingsError("the schema in a PostgreSQL URL must be lower-case letters, digits and _, as in tidegate_2")
    secrets = [match["password"] or ""]
    secrets += [value for name, _, value in (each.partition("=") for each in rest) if name.endswith("password")]
    return PostgresUrl(
        shown=f"postgresql://{match['hosts']}/{match['database'] or ''}",
        schema=schema,
        conninfo=url.partition("?")[0] + ("?" + "&".join(rest) if rest else ""),
        passwords=tuple(sorted({*filter(None, secrets), *filter(None, map(unquote, secrets))}, key=len, reverse=True)),
    )
