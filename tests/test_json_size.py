"""JSON of too many values is known before it is parsed, whatever its strings hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.services import json_size
from tidegate.services.json_size import MOST_VALUES, has_few_values

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
)


@pytest.mark.parametrize("value", [b"[],", b"{},", b"0,", b'"a",', b'"\\"",', b'"a":1,'])
def test_many_values_are_told_from_one(value: bytes) -> None:
    assert not has_few_values(b'{"text": [' + value * (MOST_VALUES + 1))
    assert has_few_values(json.dumps({"text": (value * (MOST_VALUES + 1)).decode()}).encode())


@given(value=_values)
def test_each_value_counts_whatever_its_strings_are(value: Any) -> None:
    def count(part: Any) -> int:
        if isinstance(part, dict):
            return 1 + sum(map(count, part.values()))
        return 1 + sum(map(count, part)) if isinstance(part, list) else 1

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_size, "MOST_VALUES", 2 * count(value))
        assert has_few_values(json.dumps(value).encode())
        patched.setattr(json_size, "MOST_VALUES", count(value) // 2)
        assert not has_few_values(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
