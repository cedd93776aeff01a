"""Figures in the README, docs/benchmarks.md and docs/scale.md are those of the committed results."""

from __future__ import annotations

import re

import pytest

from benchmarks import scale as calculator
from benchmarks.figures import PAGE, README, SCALE, SCALE_CHART, Results, page, with_headlines
from benchmarks.sections import scale

TEXT = README.read_text(encoding="utf-8")


def test_headline_figures_are_those_of_the_committed_results() -> None:
    assert with_headlines(TEXT, Results()) == TEXT, "run `make figures` after a new result"


def test_page_is_that_of_the_committed_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(Results()), "run `make figures` after a new result"


def test_a_changed_figure_is_noticed() -> None:
    changed = re.sub(r"(\d\.\d\d)×", "9.99×", TEXT, count=1)
    assert changed != TEXT
    assert with_headlines(changed, Results()) == TEXT


def test_the_page_on_scale_and_its_chart_are_those_of_the_committed_results() -> None:
    assert SCALE.read_text(encoding="utf-8") == scale.page(Results()), "run `make figures` after a new result"
    assert SCALE_CHART.read_text(encoding="utf-8") == scale.chart(Results()), "run `make figures` after a new result"


@pytest.mark.parametrize(
    ("plan", "slowest", "hours", "dollars"),
    [
        (calculator.Plan(images=3.6e6, gpus=0, cores=10), "compute", 20.0, 0.04 * 10 * 20),  # 0.2 s each
        (calculator.Plan(images=3.6e6, gpus=1), "compute", 1.0, 3.0),
        (calculator.Plan(images=3.6e6, gpus=2, cores=2), "decode", 1.0, 6.0),
        (calculator.Plan(images=3.6e6, gpus=8, jobs=2), "driver", 0.25, 6.0),
        (calculator.Plan(images=3.6e6, gpus=8, jobs=4, network=1.6), "network", 0.5, 12.0),
        (calculator.Plan(images=3.6e6, gpus=8, jobs=2, image_kb=200), "driver", 0.5, 12.0),
    ],
)
def test_the_slowest_stage_bounds_the_job(plan: calculator.Plan, slowest: str, hours: float, dollars: float) -> None:
    measured = calculator.Measured(gpu=1e-3, gpu_text=1e-4, cpu=0.196, decode=4e-3, driver=5e-4, write=1e-6)
    found = calculator.rates(plan, measured)
    assert min(found, key=found.__getitem__) == slowest
    assert plan.images / found[slowest] / 3600 == pytest.approx(hours)
    row = calculator.throughput_table([plan], measured)[2].split(" | ")
    assert row[-1] == f"{dollars:,.0f} |"
    assert float(row[-2]) == pytest.approx(dollars / 3.6, abs=0.01)
