"""Renders ``report.html``: one page without script, font or any other file, from the templates in ``templates/``."""

from __future__ import annotations

import re
from collections.abc import Callable

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from align_bench.page.document import document
from align_bench.page.markup import FORBIDDEN
from align_bench.page.markup import Markup as PageMarkup
from align_calibration.dataset.calibration_dataset import DATASET_NAME
from align_exporter.report import charts, formatting, range_chart, tables
from align_exporter.report.record import BuildRecord
from align_runtime.graph_entry import SAMPLE_WORDS

FORMATS = ("scientific", "number", "cosine", "size", "share", "shares", "duration", "times")


def page(record: BuildRecord) -> str:
    """Returns the whole document."""
    body = _environment().get_template("page.html.j2").render(record=record, graphs=record.graphs)
    # Names of files and operators may hold characters that no document may, e.g. halves of surrogate pairs.
    return document(f"{record.provenance.name}: build report", PageMarkup(body)).translate(FORBIDDEN)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("align_exporter.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(formatting, name) for name in FORMATS} | {"code": _code}
    environment.globals |= {
        "definitions": _drawn(charts.definitions),
        "bar": _drawn(charts.bar),
        "stacked_bar": _drawn(charts.stacked_bar),
        "error_histogram": _drawn(charts.error_histogram),
        "candidate_chart": _drawn(charts.candidate_chart),
        "range_chart": _drawn(range_chart.range_chart),
        "range_key": _drawn(range_chart.key),
        "beyond": range_chart.beyond,
        "rounding": range_chart.rounding,
        "FP16_MAX": range_chart.FP16_MAX,
        "DATASET_NAME": DATASET_NAME,
        "SAMPLE_WORDS": SAMPLE_WORDS,
        "tables": tables,
    }
    return environment


def _drawn(chart: Callable[..., str]) -> Callable[..., Markup]:
    """Returns `chart` with a result that the templates do not escape again."""
    return lambda *arguments, **named: Markup(chart(*arguments, **named))  # noqa: S704 (charts escape their texts)


def _code(text: str) -> Markup:
    """Returns `text` as a name or a command, with line breaks allowed after dots and slashes."""
    pieces = re.split(r"(?<=[./])", text)
    return Markup("<code>{}</code>").format(Markup("<wbr>").join(pieces))
