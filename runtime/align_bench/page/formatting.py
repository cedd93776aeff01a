"""Numbers as text. Rounding never makes a value look better: only all is 100 %, only an exact 1 is 1."""

from __future__ import annotations

import math
from collections.abc import Mapping

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
UNKNOWN = "—"
NBSP = "\u00a0"  # between a value and its unit


def scientific(value: float) -> str:
    """``4.4e-07``; ``5e-05`` for a round value; ``0``."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite"
    mantissa, exponent = f"{value:.1e}".split("e")
    return "0" if value == 0 else f"{mantissa.removesuffix('.0')}e{exponent}"


def number(value: float) -> str:
    """Three significant digits: ``0.0123``, ``12.3``, ``65504``."""
    if not math.isfinite(value):
        return scientific(value)
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def cosine(value: float) -> str:
    """Seven decimals, rounded down: ``0.9999993``."""
    return f"{math.floor(value * 1e7) / 1e7:.7f}" if math.isfinite(value) else scientific(value)


def size(count: int) -> str:
    """Bytes in powers of 1000: ``2.5 MB``."""
    return f"{count} bytes" if count < 1000 else f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def amount(count: float) -> str:
    """``8.40 G``, ``62.1 M``, ``312``."""
    for factor, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= factor:
            return f"{count / factor:#.3g}".rstrip(".") + prefix
    return f"{count:.0f}"


def share(part: float, whole: float) -> str:
    """`part` of `whole` in percent: ``99.98 %``; only 0 of it is ``0 %`` and only all of it ``100 %``."""
    percent = 100 * part / whole if whole else 0.0
    if part in (0, whole):
        text = f"{percent:.0f}"
    elif percent > 99.99:
        text = f">{NBSP}99.99"
    elif percent < 0.01:
        text = f"<{NBSP}0.01"
    else:
        text = f"{percent:.2f}"
    return f"{text}{NBSP}%"


def shares(parts: Mapping[str, float]) -> str:
    """``float16 99.98 % · float32 0.02 %``, largest first."""
    whole = sum(parts.values())
    return " · ".join(f"{name}{NBSP}{share(part, whole)}" for name, part in descending(parts)) or UNKNOWN


def descending(parts: Mapping[str, float]) -> list[tuple[str, float]]:
    """Pairs with a value other than 0, largest first."""
    return sorted(((name, part) for name, part in parts.items() if part), key=lambda pair: (-pair[1], pair[0]))


def duration(seconds: float) -> str:
    """``0.4 s``, ``2 min 28 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def milliseconds(seconds: float) -> str:
    """``12.3 ms``."""
    return f"{number(1000 * seconds)} ms"


def power_of_ten(exponent: int) -> str:
    """``10⁻⁵``."""
    return f"10{str(exponent).translate(SUPERSCRIPTS)}"


def times(ratio: float) -> str:
    """``0.93 ×``; rounded down, so that only a ratio of 1 or more is ``1.00 ×``."""
    return f"{math.floor(round(100 * ratio, 6)) / 100:.2f}{NBSP}×" if math.isfinite(ratio) else scientific(ratio)
