"""PostgreSQL URLs, and that nothing shows what is secret in them."""

from __future__ import annotations

import pytest

from tidegate.errors import SettingsError
from tidegate.store.postgres_url import read_url


@pytest.mark.parametrize(
    ("url", "conninfo", "schema", "shown"),
    [
        ("postgresql://host/db", "postgresql://host/db", "tidegate", "postgresql://host/db"),
        ("postgres://me:pass@host:5433/db", "postgres://me:pass@host:5433/db", "tidegate", "postgresql://host:5433/db"),
        ("postgresql://", "postgresql://", "tidegate", "postgresql:///"),
        (
            "postgresql:///db?host=/run/pg&schema=other_2&sslmode=require",
            "postgresql:///db?host=/run/pg&sslmode=require",
            "other_2",
            "postgresql:///db",
        ),
        ("postgresql://a:1,[::1]:2/db?schema=x", "postgresql://a:1,[::1]:2/db", "x", "postgresql://a:1,[::1]:2/db"),
        ("postgresql://me:a%40b%2Fc@host/db", "postgresql://me:a%40b%2Fc@host/db", "tidegate", "postgresql://host/db"),
    ],
)
def test_a_url_names_a_database_and_a_schema(url: str, conninfo: str, schema: str, shown: str) -> None:
    read = read_url(url)
    assert (read.conninfo, read.schema, read.shown) == (conninfo, schema, shown)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:host/db",
        "postgresql://me:sec@ret@host/db",
        "postgresql://me:sec/ret@host/db",
        "postgresql://me:sec?ret@host/db",
        "postgresql://me:sec#ret@host/db",
        "postgresql://me:sec:ret@host/db",
        "postgresql://me:sec ret@host/db",
        "postgresql://me:secret",
        "postgresql://host/db?password=sec@ret",
        "postgresql://host/db#secret",
        "postgresql://host/db/secret",
    ],
)
def test_a_url_that_can_be_read_in_two_ways_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(SettingsError, match=r"percent-encoded \(@ as %40") as caught:
        read_url(url)
    assert not {"sec", "ret", "secret"} & set(str(caught.value).replace("/", " ").split())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("schema", ["", "Tide", "a-b", "a;drop", "pg_x", "%22", "a" * 64])
def test_a_schema_is_a_plain_name(schema: str) -> None:
    with pytest.raises(SettingsError, match="lower-case letters, digits and _"):
        read_url(f"postgresql://host/db?schema={schema}")


def test_passwords_are_neither_shown_nor_left_in_what_the_server_says() -> None:
    url = read_url("postgresql://me:a%40b@host/db?sslpassword=other")
    assert not {"a@b", "a%40b", "other"} & set(repr(url).replace("'", " ").split())
    assert url.hide("a@b or\n a%40b or other") == "(hidden) or (hidden) or (hidden)"


def test_a_password_of_a_letter_is_hidden_and_words_with_that_letter_are_not() -> None:
    assert (
        read_url("postgresql://u:p@host/x").hide("accepting u:p@host on port 1")
        == "accepting u:(hidden)@host on port 1"
    )
