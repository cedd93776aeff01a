"""Figures in the README and in docs/benchmarks.md are those of the committed results."""

from __future__ import annotations

import re

from benchmarks.figures import PAGE, README, Results, page, with_headlines

TEXT = README.read_text(encoding="utf-8")


def test_headline_figures_are_those_of_the_committed_results() -> None:
    assert with_headlines(TEXT, Results()) == TEXT, "run `make figures` after a new result"


def test_page_is_that_of_the_committed_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(Results()), "run `make figures` after a new result"


def test_a_changed_figure_is_noticed() -> None:
    changed = re.sub(r"(\d\.\d\d)×", "9.99×", TEXT, count=1)
    assert changed != TEXT
    assert with_headlines(changed, Results()) == TEXT
