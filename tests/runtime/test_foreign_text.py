"""Text from a stranger, safe to print."""

from __future__ import annotations

import pytest

from align_runtime.errors import AlignError
from align_runtime.foreign_text import printable, shortened


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ä 猫", "plain ä 猫"),
        ("no-break\u00a0space", "no-break\u00a0space"),
        ("\x1b[2Jx", "\\x1b[2Jx"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\u2028line", "\\u2028line"),
        ("lone \ud800", "lone \\ud800"),
        ("\x9b31m", "\\x9b31m"),
        ("\U000e0041tag", "\\U000e0041tag"),
    ],
)
def test_unsafe_characters_are_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert printable(text).encode("utf-8")


def test_a_long_text_is_cut_in_its_middle() -> None:
    assert printable("a" * 50 + "b" * 50, 11) == "aaaaa…bbbbb"
    assert printable("a" * 11, 11) == "a" * 11
    assert len(printable("\x1b" * 10_000_000, 100)) == 100  # and every escape is short: nothing is escaped to its end


def test_a_value_is_shortened() -> None:
    assert shortened("x" * 5_000_000, 10) == "'xxxxxxxxx…"
    assert shortened([1, 2], 10) == "[1, 2]"


def test_an_error_is_one_printable_line_of_bounded_length() -> None:
    assert str(AlignError("first\nsecond \x1b[31m")) == "first second \\x1b[31m"
    assert len(str(AlignError("\x00" * 5_000_000))) == 500


def test_an_integer_that_python_does_not_print() -> None:
    assert shortened(10**5000) == "(int, too long to print)"
