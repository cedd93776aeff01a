"""Text from a stranger, made safe to print: names in an archive, strings of a manifest, values in an error message."""

from __future__ import annotations

import unicodedata
from typing import Any

# Control characters move a terminal's cursor, format characters hide or reorder text (bidirectional overrides), lone
# surrogates cannot be encoded, separators end a line. Unassigned and private characters are harmless.
_UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")


def printable(text: str, limit: int | None = None) -> str:
    """`text` on one line, with control, format and surrogate characters escaped as in a Python literal.

    Args:
        limit: maximum length in characters; a longer text is cut in the middle, since names differ at both ends.
    """
    if limit is not None and len(text) > limit:
        text = cut(text, limit)  # first: a text of gigabytes is not escaped to its end
    if not text.isprintable():
        text = "".join(_escaped(character) for character in text)
    return text if limit is None else cut(text, limit)


def cut(text: str, limit: int) -> str:
    """`text` with at most `limit` characters: its middle is replaced by an ellipsis."""
    if len(text) <= limit:
        return text
    tail = limit // 2
    return f"{text[: limit - tail - 1]}…{text[len(text) - tail :]}"


def shortened(value: Any, limit: int = 100) -> str:
    """The repr of `value` with at most `limit` characters; of a long text only what is shown is formatted."""
    if isinstance(value, str | bytes) and len(value) > limit:
        return f"{value[:limit]!r}"[:limit] + "…"
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f"({type(value).__name__}, too long to print)"
    return text if len(text) <= limit else f"{text[:limit]}…"


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _UNSAFE:
        return character
    return character.encode("unicode_escape").decode("ascii")
