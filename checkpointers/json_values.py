"""Python values <-> JSON that people can read and that turns back into the same values.

Plain JSON stands for itself. What JSON does not have is an object with a key that begins with `$`:

    {"$send": {"node": ..., "arg": ...}}              a task sent to a node
    {"$interrupt": {"value": ..., "id": ...}}         a question that a node waits on
    {"$msgpack": "..."}, {"$bytes": "..."}            anything else, as LangGraph serializes it, in base64

Keys of the value's own that begin with `$` get a second one. Tuples become lists, as in every saver of LangGraph.
"""

from __future__ import annotations

import base64
import math
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.types import Interrupt, Send

_MAX_DEPTH = 100  # deeper values are serialized by LangGraph, which does not use up Python's stack
_SERIALIZED = ("msgpack", "bytes", "bytearray")


def encode(value: Any, serde: SerializerProtocol, depth: int = 0) -> Any:
    """Return the value as plain JSON."""
    kind = type(value)  # exact types: a subclass would come back as its base
    if value is None or kind is bool or kind is int or kind is str or (kind is float and math.isfinite(value)):
        return value
    if depth < _MAX_DEPTH:
        depth += 1
        if kind is list or kind is tuple:
            return [encode(item, serde, depth) for item in value]
        if kind is dict and all(type(key) is str for key in value):
            return {
                f"${key}" if key.startswith("$") else key: encode(item, serde, depth) for key, item in value.items()
            }
        if kind is Send and value.timeout is None:
            return {"$send": {"node": value.node, "arg": encode(value.arg, serde, depth)}}
        if kind is Interrupt and value.response_schema is None:
            return {"$interrupt": {"value": encode(value.value, serde, depth), "id": value.id}}
    if isinstance(value, BaseException):
        return repr(value)  # what LangGraph's serializer makes of one
    name, data = serde.dumps_typed(value)
    return {f"${name}": base64.b64encode(data).decode("ascii")}


def decode(value: Any, serde: SerializerProtocol) -> Any:
    """Return the value that `encode` was given.

    Raises:
        ValueError: this is not what `encode` writes. It may have been edited, or come from a newer version.
    """
    if isinstance(value, list):
        return [decode(item, serde) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, item),) = value.items()
        if key.startswith("$") and not key.startswith("$$"):
            return _untag(key[1:], item, serde)
    if any(key.startswith("$") and not key.startswith("$$") for key in value):
        raise ValueError("has an object with an unknown $ key")
    return {key.removeprefix("$"): decode(item, serde) for key, item in value.items()}


def _untag(name: str, item: Any, serde: SerializerProtocol) -> Any:
    if name in _SERIALIZED and isinstance(item, str):
        try:
            return serde.loads_typed((name, base64.b64decode(item, validate=True)))
        except Exception as error:
            raise ValueError(f"has a ${name} value that cannot be loaded") from error
    match name, item:
        case "send", {"node": str(node), "arg": arg} if len(item) == 2:
            return Send(node, decode(arg, serde))
        case "interrupt", {"value": question, "id": str(id_)} if len(item) == 2:
            return Interrupt(value=decode(question, serde), id=id_)
    raise ValueError("has an object with an unknown $ key")
