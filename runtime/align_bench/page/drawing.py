"""The few marks that all charts are drawn with: x in percent of the width, y in pixels."""

from __future__ import annotations

from align_bench.page.markup import Markup, element


def percent(fraction: float) -> str:
    """`fraction` of the width, as SVG writes it."""
    return f"{100 * fraction:.3f}".rstrip("0").rstrip(".") + "%"


def across(y: float, kind: str) -> Markup:
    """A horizontal line at `y` over the whole width, of the style sheet's class `kind`."""
    return element("line", x1=0, x2="100%", y1=y, y2=y, class_=kind)


def label(text: str, x: str, y: float, anchor: str, dx: float | None = None, kind: str | None = None) -> Markup:
    """`text` at `x`, its base line at `y`; `anchor` is the end of it that stands there, `dx` pixels further right."""
    return element("text", text, x=x, y=y, dx=dx, text_anchor=anchor, class_=kind)
