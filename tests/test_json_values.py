"""Values in JSON files: what comes back is what was put in."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.types import Interrupt, Send

from tests.checkpoints import put, values
from tidegate.checkpointers.json_file import JsonFileSaver
from tidegate.checkpointers.json_format import dump_json
from tidegate.checkpointers.json_thread import LARGE
from tidegate.checkpointers.json_values import decode, encode
from tidegate.checkpointers.saving import StrictSerializer


@pytest.fixture
def saver(tmp_path: Path) -> JsonFileSaver:
    return JsonFileSaver(tmp_path)


keys = st.text(max_size=5) | st.sampled_from(["$", "$$", "$send", "$$send", "$file", "$msgpack", "node"])
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
)
plain = st.recursive(
    scalars | st.dates() | st.sets(st.integers(0, 9)),
    lambda each: (
        st.lists(each)
        | st.dictionaries(keys, each)
        | st.dictionaries(st.integers(0, 9), each, min_size=1)
        | st.builds(Send, st.text(), each)
        | st.builds(lambda value, id_: Interrupt(value=value, id=id_), each, st.text())
    ),
    max_leaves=10,
)


@given(value=plain)
def test_values_come_back_as_they_were(value: Any) -> None:
    serde = StrictSerializer()
    stored = dump_json(encode(value, serde))
    assert decode(json.loads(stored), serde) == value


@pytest.mark.parametrize(
    "value",
    [
        "\ud800 a lone surrogate",
        float("inf"),
        2**64 + 1,
        [[[[dt.datetime(2026, 3, 1, tzinfo=dt.UTC)]]]],
        Send("a", Send("b", b"\0")),
        Interrupt(value={"$x": 1}, id="1"),
        Interrupt(value=1, id="1", response_schema={"type": "string"}),
        Send("a", 1, timeout=3),
        "x" * LARGE,
        ["$file"],
        {"$file": "values/" + "0" * 64 + ".json"},
    ],
)
def test_unusual_values_come_back_as_they_were(value: Any, saver: JsonFileSaver) -> None:
    put(saver, value=value)
    assert values(saver) == {"value": value}


def test_what_langgraph_does_not_keep_is_not_kept_either(saver: JsonFileSaver) -> None:
    put(saver, pair=(1, [2]), error=ValueError("no"))
    assert values(saver) == {"pair": [1, [2]], "error": "ValueError('no')"}


def test_deep_values_do_not_use_up_the_stack(saver: JsonFileSaver) -> None:
    put(saver, deep=_nested(300))  # 255 are the most that LangGraph's serializer takes
    assert values(saver) == {"deep": _nested(300)}
    with pytest.raises(TypeError, match="Recursion limit"):
        put(saver, deep=_nested(100_000))
    assert values(saver) == {"deep": _nested(300)}


def _nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value
