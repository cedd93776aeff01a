"""Names in messages stay on one line and do not flood a terminal."""

from __future__ import annotations

from align_reference.listing import MAX_CHARACTERS, MAX_LIST_CHARACTERS, listing, shorten


def test_names_up_to_the_limit_are_shown_and_the_rest_counted() -> None:
    assert listing(str(number) for number in range(3)) == "0, 1, 2"
    assert listing(["abc", "def", "ghi"], limit=10) == "abc, def and 1 more"
    many = listing(str(number) for number in range(500))
    assert many.startswith("0, 1, 2, ")
    assert len(many) <= MAX_LIST_CHARACTERS + len(" and 500 more")
    last = int(many.split(" and ")[0].rsplit(", ", 1)[1])
    assert many.endswith(f" and {499 - last} more")


def test_the_first_name_is_always_shown() -> None:
    assert listing(["a" * 100, "b"], limit=20) == "a" * 19 + "… and 1 more"
    assert listing([]) == ""


def test_one_printable_line() -> None:
    assert shorten("  a\n\tb\x1b[1mc ") == "a b [1mc"


def test_long_text_is_cut() -> None:
    assert shorten("x" * MAX_CHARACTERS) == "x" * MAX_CHARACTERS
    assert shorten("x" * 10**6) == "x" * (MAX_CHARACTERS - 1) + "…"
