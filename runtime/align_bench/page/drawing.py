"""What all charts are drawn with: axes, lines and labels; x in percent of the width, y in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from align_bench.page.markup import Markup, element

TICKS_DOWN = 4  # of a linear axis


def percent(fraction: float) -> str:
    """A fraction of the width as an SVG length."""
    return f"{100 * fraction:.3f}".rstrip("0").rstrip(".") + "%"


def across(y: float, kind: str) -> Markup:
    """A horizontal line at `y` over the whole width; `kind` is its CSS class."""
    return element("line", x1=0, x2="100%", y1=y, y2=y, class_=kind)


def label(text: str, x: str, y: float, anchor: str, dx: float | None = None, kind: str | None = None) -> Markup:
    """`text` with its `anchor` (``"start"``, ``"middle"``, ``"end"``) `dx` pixels right of `x`, its baseline at `y`."""
    return element("text", text, x=x, y=y, dx=dx, text_anchor=anchor, class_=kind)


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` as fractions of a length, linear or logarithmic."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def over(cls, values: Sequence[float], logarithmic: bool) -> Axis:
        """An axis that holds `values`; a linear one begins at 0 and ends at a round value."""
        if logarithmic:
            return cls(min(values), max(max(values), 1.0001 * min(values)), True)
        return cls(0.0, _round_up(max(values)), False)

    def place(self, value: float) -> float:
        """Where `value` is: 0 at `low`, 1 at `high`."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Even steps of a linear axis; 1, 2 and 5 times the powers of ten within a logarithmic one."""
        if not self.logarithmic:
            return [self.high * step / TICKS_DOWN for step in range(TICKS_DOWN + 1)]
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        inside = [step * 10.0**power for power in powers for step in (1, 2, 5) if self._holds(step * 10.0**power)]
        wide = len(inside) > 6
        return [value for value in inside if not wide or f"{value:e}".startswith("1")]

    def _holds(self, value: float) -> bool:
        return self.low * 0.999 <= value <= self.high * 1.001


def _round_up(value: float) -> float:
    """The smallest of 1, 2, 4, 5, 8 times a power of ten that is not below `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1, 2, 4, 5, 8) if step * power >= value), 10 * power)
