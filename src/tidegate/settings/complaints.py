"""What is wrong with a setting, in a sentence: where it stands, what it takes, and what it may have meant."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final, get_args

from pydantic import BaseModel

_TAKES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missing": "is needed, and missing",
        "greater_than": "has to be more than {gt:g}",
        "greater_than_equal": "has to be {ge:g} or more",
        "less_than": "has to be less than {lt:g}",
        "less_than_equal": "has to be {le:g} or less",
        "literal_error": "has to be {expected}",
        "int_parsing": "has to be a whole number",
        "int_type": "has to be a whole number",
        "int_from_float": "has to be a whole number",
        "float_parsing": "has to be a number",
        "float_type": "has to be a number",
        "finite_number": "has to be a finite number",
        "bool_parsing": "has to be true or false",
        "bool_type": "has to be true or false",
        "string_type": "has to be text, in quotation marks",
        "string_too_short": "may not be empty",
        "string_too_long": "may have {max_length} characters at most",
        "string_pattern_mismatch": "does not fit the pattern {pattern}",
        "tuple_type": 'has to be a list, as ["A", "B"]',
        "list_type": 'has to be a list, as ["A", "B"]',
        "too_short": "may not be empty",
        "dict_type": "has to be a table of names and values",
        "model_type": "has to be a table of settings",
        "model_attributes_type": "has to be a table of settings",
        "union_tag_invalid": "has to have a kind that is one of {expected_tags}",
        "union_tag_not_found": "has to have a kind",
    }
)
"""By pydantic's words for it (https://docs.pydantic.dev/latest/errors/validation_errors/)."""

_TABLES: Final = (("trigger",), ("sink",))
"""Settings that are arrays of tables in TOML."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """One of the errors that pydantic lists; `limits` are what the setting has to keep to."""

    kind: str
    location: tuple[int | str, ...]
    message: str
    limits: Mapping[str, Any]


def complaint(wrong: Wrong, settings: type[BaseModel], *, options: object, by_variable: object, by_file: object) -> str:
    """Return the sentence. It never holds the value, which may be a secret."""
    location = wrong.location
    source = _source(location, options, by_variable, by_file)
    if wrong.kind == "extra_forbidden":
        *section, name = location
        known = list(_fields(settings, section))
        meant = get_close_matches(str(name).lower(), known, n=1)
        near = f"; did you mean {meant[0]!r}?" if meant else ""
        return f"{source}{_dotted(section)} has no setting {str(name)!r}{near}"
    words = _TAKES.get(wrong.kind)
    if location in _TABLES and wrong.kind == "tuple_type":
        words = f"is written once for each, under [[{location[0]}]]"
    told = wrong.message.removeprefix("Value error, ") if words is None else words.format(**wrong.limits)
    told = told.replace("Input should be", "has to be")
    if not location:
        return f"{source}{told}"
    return f"{source}{_dotted(location)}{' ' if words or told.startswith('has ') else ': '}{told}"


def _dotted(location: Sequence[int | str]) -> str:
    return ".".join(map(str, location)) or "the top level"


def _source(location: Sequence[int | str], options: object, by_variable: object, by_file: object) -> str:
    path: list[str] = []
    for part in location:
        if not isinstance(part, str):
            break  # a list is of one source
        path.append(part)
    while path:
        if holds(options, path):
            return ""
        if holds(by_variable, path):
            return f"{_variable(path)}: "
        if holds(by_file, path):
            return "tidegate.toml: "
        path.pop()
    return ""


def _variable(path: Sequence[str]) -> str:
    """Return the variable that is there: one of its own, or that of its section, which holds JSON."""
    names = {name.upper(): name for name in os.environ}
    tried = ["TIDEGATE_" + "__".join(path[:length]).upper() for length in range(len(path), 0, -1)]
    return next((names[name] for name in tried if name in names), tried[0])


def holds(found: object, path: Sequence[str]) -> bool:
    """Say whether a source has something under a path, however its names are written."""
    for name in path:
        if not isinstance(found, dict):
            return False
        keys = {key.lower(): key for key in found}
        if name.lower() not in keys:
            return False
        found = found[keys[name.lower()]]
    return True


def _fields(settings: type[BaseModel], section: Sequence[int | str]) -> Iterator[str]:
    """Return the names that a section has; several models may stand there, of which one has the kind named next."""
    models = [settings]
    for part in section:
        kinds = [model for model in models if part in get_args(_annotation(model, "kind"))]
        if kinds:
            models = kinds
        elif not isinstance(part, int):
            models = [found for model in models for found in _models(_annotation(model, part))]
    for model in models:
        yield from model.model_fields


def _annotation(model: type[BaseModel], name: int | str) -> Any:
    field = model.model_fields.get(str(name))
    return None if field is None else field.annotation


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inside in get_args(annotation):
        yield from _models(inside)
