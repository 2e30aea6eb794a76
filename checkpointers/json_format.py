"""What is in the files of a thread: their fields, and JSON in and out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

_VALUE_FILE = re.compile(r"values/[0-9a-f]{64}\.json")


class Damaged(Exception):
    """A file is not as it was written. With the file `remove` gone, all the rest can be read."""

    def __init__(self, file: Path, problem: str, remove: Path) -> None:
        super().__init__(f"{file} {problem}")
        self.remove = remove


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[1] = 1
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str


class CheckpointFile(_File):
    """A checkpoint. Values are encoded, large ones as `{"$file": "values/..."}`."""

    parent_checkpoint_id: str | None
    metadata: dict[str, Any]
    channel_values: dict[str, Any]
    checkpoint: dict[str, Any]


class Write(BaseModel):
    """A write to a channel. `index` is its place among the task's writes, or below zero as WRITES_IDX_MAP has it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    index: int
    channel: str
    task_path: str
    value: Any


class WritesFile(_File):
    """All writes of a task. They share a file because a task counts as done as soon as one write of it is there."""

    task_id: str
    writes: list[Write]


AnyFile = TypeVar("AnyFile", CheckpointFile, WritesFile)


def parse(data: bytes, kind: type[AnyFile], path: Path) -> AnyFile:
    """Return the file that these bytes are.

    Raises:
        Damaged: they are not such a file. The message names fields, never contents.
    """
    try:
        return kind.model_validate(parse_json(data, path, path))
    except ValidationError as error:
        wrong = {each["loc"][0] for each in error.errors(include_input=False) if each["loc"]}
        fields = [name for name in kind.model_fields if name in wrong]
        raise Damaged(path, f"does not fit this version ({', '.join(fields) or 'its fields'})", path) from None


def parse_json(data: bytes, path: Path, owner: Path) -> Any:
    """Return what is in a JSON file; `owner` is the file that names it, or itself."""
    try:
        return json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Damaged(path, "is not whole JSON", owner) from None


def dump_json(value: Any) -> bytes:
    """Return plain JSON as a file that people can read and compare."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2)
    return text.encode("utf-8", "backslashreplace") + b"\n"  # a lone surrogate becomes its escape, which JSON has too


def value_file(value: Any) -> str | None:
    """Return the name in `{"$file": name}`; None for a value that stands in the file itself."""
    name = value.get("$file") if isinstance(value, dict) and len(value) == 1 else None
    return name if isinstance(name, str) and _VALUE_FILE.fullmatch(name) else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
