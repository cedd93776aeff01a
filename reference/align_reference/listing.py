"""Names and values in error messages, on one line and bounded, so that a message stays below 500 characters."""

from __future__ import annotations

from collections.abc import Iterable

MAX_CHARACTERS = 120  # of one name or value
MAX_LIST_CHARACTERS = 240


def listing(names: Iterable[str], limit: int = MAX_LIST_CHARACTERS) -> str:
    """`names` in order, separated by commas, up to about `limit` characters, then how many more there are.

    The first name is always shown, shortened if need be.
    """
    every = list(names)
    shown: list[str] = []
    room = limit
    for name in every:
        text = shorten(name, min(limit, MAX_CHARACTERS))
        room -= len(text) + len(", ")
        if shown and room < 0:
            break
        shown.append(text)
    rest = len(every) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def shorten(text: object, limit: int = MAX_CHARACTERS) -> str:
    """`text` on one line, printable, of at most `limit` characters."""
    line = "".join(character if character.isprintable() else " " for character in str(text)[: 4 * limit])
    line = " ".join(line.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
