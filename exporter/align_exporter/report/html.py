"""``report.html``: one page that needs nothing but itself, for the build engineer and for whoever has to sign it."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from align_exporter.report.charts import definitions
from align_exporter.report.graph_section import graph_sections
from align_exporter.report.markup import Markup, element
from align_exporter.report.origin import check_again, phases, provenance
from align_exporter.report.overview import sizes_and_precision, verdict
from align_exporter.report.parts import code
from align_exporter.report.range_section import range_section
from align_exporter.report.record import BuildRecord

STYLE = Path(__file__).with_name("style.css")
CONTENTS = (
    ("verdict", "Verdict"),
    ("precision", "Size and precision"),
    ("graphs", "Graphs"),
    ("ranges", "Activation ranges"),
    ("phases", "Phases"),
    ("provenance", "Made from what"),
    ("check", "Check it again"),
)


def page(record: BuildRecord) -> str:
    """The whole document. It loads nothing and runs nothing: its policy allows its one style sheet only."""
    name = record.provenance.name
    main = element(
        "main",
        verdict(record),
        sizes_and_precision(record),
        graph_sections(record),
        range_section(record),
        phases(record),
        provenance(record),
        check_again(),
    )
    body = element("body", definitions(), _header(record), _contents(main), main)
    return f"<!DOCTYPE html>\n{element('html', _head(f'{name}: build report'), body, lang='en')}\n"


def _head(title: str) -> Markup:
    css = STYLE.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="generator", content="align-onnx"),
        element("title", title),
        element("style", Markup(css)),
    )


def _header(record: BuildRecord) -> Markup:
    source = record.provenance
    revision = [" at ", code(source.revision)] if source.revision else []
    line = element(
        "p", "Build report of the bundle made from ", code(source.name), *revision, ", ", record.built, class_="muted"
    )
    return element("header", element("h1", source.name), line)


def _contents(main: str) -> Markup:
    """Links to the parts that are there."""
    items = [
        element("li", element("a", title, href=f"#{anchor}")) for anchor, title in CONTENTS if f'id="{anchor}"' in main
    ]
    return element("nav", element("ul", *items), aria_label="Contents")
