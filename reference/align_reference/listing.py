"""Lists of names in error messages: quoted, and cut where they would flood a terminal."""

from __future__ import annotations

from collections.abc import Iterable

MAX_NAMES = 20
MAX_CHARACTERS = 120


def listing(names: Iterable[str]) -> str:
    """`names` in order, separated by commas; after the twentieth comes how many more there are."""
    every = list(names)
    shown = ", ".join(shorten(name) for name in every[:MAX_NAMES])
    return shown if len(every) <= MAX_NAMES else f"{shown} and {len(every) - MAX_NAMES} more"


def shorten(text: object, limit: int = MAX_CHARACTERS) -> str:
    """`text` on one line, printable, of at most `limit` characters."""
    line = "".join(character if character.isprintable() else " " for character in str(text)[: 4 * limit])
    line = " ".join(line.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
