"""The components of a page: sections, scrolling tables, lists of facts, figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from align_bench.page.markup import Markup, element

Row = Sequence[str | Markup]


def section(anchor: str, title: str, *children: str) -> Markup:
    """A section with a second-level heading, which ``#anchor`` links to."""
    return element("section", element("h2", title, id=anchor), *children, aria_labelledby=anchor)


def table(caption: str, headings: Sequence[str], rows: Iterable[Row], numbers: Sequence[int] = ()) -> Markup:
    """A table that scrolls in its own box; the first column names the rows.

    Args:
        caption: what the table shows.
        headings: one per column.
        rows: one text or `Markup` per column.
        numbers: indices of the right-aligned columns.
    """
    head = [
        element("th", heading, scope="col", class_="number" if index in numbers else None)
        for index, heading in enumerate(headings)
    ]
    body = [element("tr", *(_cell(index, cell, index in numbers) for index, cell in enumerate(row))) for row in rows]
    content = element("table", element("thead", element("tr", *head)), element("tbody", *body))
    box = element("div", content, class_="scroll", role="region", aria_label=caption, tabindex="0")
    return element("figure", element("figcaption", caption), box)


def _cell(index: int, cell: str, is_number: bool) -> Markup:
    if index == 0:
        return element("th", cell, scope="row")
    drawn = isinstance(cell, Markup) and cell.startswith("<svg")
    return element("td", cell, class_="number" if is_number else "drawn" if drawn else None)


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """A description list of names and values."""
    return element("dl", *(element(tag, text) for pair in pairs for tag, text in zip(("dt", "dd"), pair, strict=True)))


def figure(drawing: Markup, *caption: str) -> Markup:
    """A chart with its caption."""
    return element("figure", drawing, element("figcaption", *caption))


def code(text: str) -> Markup:
    """`text` as code; a line may break after a dot or a slash."""
    pieces = re.split(r"(?<=[./])", text)
    return element("code", *(part for piece in pieces for part in (piece, element("wbr")) if piece))


def more(shown: Sequence[Markup], rest: Sequence[Markup]) -> Markup:
    """A list; `rest` is folded away."""
    first = element("ul", *(element("li", item) for item in shown), class_="names")
    if not rest:
        return first
    folded = element("ul", *(element("li", item) for item in rest), class_="names")
    return element("div", first, element("details", element("summary", f"{len(rest)} more"), folded))
