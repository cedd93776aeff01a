"""HTML and SVG as nested calls. Text is escaped when it enters; only `Markup` is taken as it is."""

from __future__ import annotations

import html
from collections.abc import Iterable

VOID = ("meta", "wbr")
# Not allowed in a document: control characters, lone surrogates, which stand for the bytes of non-UTF-8 file names, and
# marks that change the direction of what follows them: a name could reverse the figures beside it.
DIRECTION_MARKS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
FORBIDDEN = dict.fromkeys(
    (*range(9), 11, 12, *range(14, 32), *range(127, 160), *range(0xD800, 0xE000), *DIRECTION_MARKS), "\ufffd"
)


class Markup(str):
    """HTML that is escaped already."""

    __slots__ = ()


def escape(text: str) -> Markup:
    """`text` for HTML and XML, in an element or between quotes."""
    return text if isinstance(text, Markup) else Markup(html.escape(text.translate(FORBIDDEN)))


def join(parts: Iterable[str]) -> Markup:
    """`parts`, escaped and concatenated."""
    return Markup("".join(map(escape, parts)))


def element(tag: str, *children: str, **attributes: str | float | None) -> Markup:
    """``<tag …>children</tag>``.

    Args:
        attributes: ``class_`` becomes ``class``, ``aria_label`` becomes ``aria-label``; floats are rounded to two
            decimals, None is left out.
    """
    words = [tag, *(f'{_name(key)}="{_value(value)}"' for key, value in attributes.items() if value is not None)]
    opening = f"<{' '.join(words)}>"
    return Markup(opening if tag in VOID else f"{opening}{join(children)}</{tag}>")


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
