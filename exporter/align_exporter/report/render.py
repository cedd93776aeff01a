"""Writes the report: ``report.html``, one page without script, font or any other file, and ``report.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from align_bench.page import formatting
from align_bench.page.document import document
from align_bench.page.markup import FORBIDDEN
from align_bench.page.markup import Markup as PageMarkup
from align_calibration.dataset.calibration_dataset import DATASET_NAME
from align_exporter.report import charts, tables
from align_exporter.report.record import BuildRecord
from align_runtime.graph_entry import SAMPLE_WORDS
from align_runtime.manifest import REPORT_NAMES

FORMATS = ("scientific", "number", "cosine", "size", "share", "shares", "duration", "times")


def write_report(folder: Path, record: BuildRecord) -> None:
    """Writes `record` as ``report.html`` and ``report.json`` into `folder`. The same record gives the same bytes."""
    html_name, json_name = REPORT_NAMES
    text = json.dumps(record.to_json(), indent=1, allow_nan=False) + "\n"
    (folder / json_name).write_text(text, encoding="utf-8")
    (folder / html_name).write_text(page(record), encoding="utf-8")


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
        "range_chart": _drawn(charts.range_chart),
        "range_key": _drawn(charts.key),
        "beyond": charts.beyond,
        "rounding": charts.rounding,
        "FP16_MAX": charts.FP16_MAX,
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
