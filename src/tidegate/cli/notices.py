"""What a command says beside its result: lines on stderr, or, where logs are JSON, records among them."""

from __future__ import annotations

import logging

import typer

LOGGER = "tidegate.command"


class _Form:
    as_records = False
    is_verbose = False


def set_form(*, as_records: bool, is_verbose: bool) -> None:
    """Choose, for this process: whoever parses stderr as JSON lines must find nothing else there."""
    _Form.as_records, _Form.is_verbose = as_records, is_verbose


def are_records() -> bool:
    """Whether stderr holds JSON lines alone."""
    return _Form.as_records


def tell_routes() -> bool:
    """Whether the log tells of the routes that gates take, so that nothing else has to."""
    return _Form.is_verbose


def notice(text: str, *, level: int = logging.INFO) -> None:
    """Say something to whoever runs the command."""
    if _Form.as_records:
        logging.getLogger(LOGGER).log(level, "%s", text)
    else:
        typer.echo(text, err=True)
