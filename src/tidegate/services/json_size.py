"""How many values JSON from outside has, of which a parser makes up to 50 times their bytes before it refuses them."""

from __future__ import annotations

import re
from typing import Final

MOST_VALUES: Final = 1000
"""What brings a document has a handful: its text is one."""

_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


def has_few_values(text: bytes) -> bool:
    """Say whether there are at most `MOST_VALUES`; what is no JSON counts up to where a parser stops."""
    values, at = 1, 0
    while values <= MOST_VALUES:
        quote = text.find(b'"', at)
        outside = text[at:quote] if quote >= 0 else text[at:]
        values += sum(map(outside.count, (b",", b"[", b"{")))
        string = _REST_OF_STRING.match(text, quote + 1) if quote >= 0 else None
        if string is None:
            break
        at = string.end()
    return values <= MOST_VALUES
