"""Names in messages stay on one line and do not flood a terminal."""

from __future__ import annotations

from align_reference.listing import MAX_CHARACTERS, listing, shorten


def test_twenty_names_are_shown_and_the_rest_counted() -> None:
    assert listing(str(number) for number in range(3)) == "0, 1, 2"
    assert listing(str(number) for number in range(20)).endswith("18, 19")
    assert listing(str(number) for number in range(25)).endswith("18, 19 and 5 more")


def test_one_printable_line() -> None:
    assert shorten("  a\n\tb\x1b[1mc ") == "a b [1mc"


def test_long_text_is_cut() -> None:
    assert shorten("x" * MAX_CHARACTERS) == "x" * MAX_CHARACTERS
    assert shorten("x" * 10**6) == "x" * (MAX_CHARACTERS - 1) + "…"
