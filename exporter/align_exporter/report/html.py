"""``report.html``: one page that needs nothing but itself, for the build engineer and for whoever has to sign it."""

from __future__ import annotations

from align_bench.page.components import code
from align_bench.page.document import contents, document
from align_bench.page.markup import Markup, element
from align_exporter.report.charts import definitions
from align_exporter.report.graph_section import graph_sections
from align_exporter.report.origin import check_again, phases, provenance
from align_exporter.report.overview import sizes_and_precision, verdict
from align_exporter.report.range_section import range_section
from align_exporter.report.record import BuildRecord

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
    """The whole document."""
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
    return document(f"{name}: build report", definitions(), _header(record), contents(main, CONTENTS), main)


def _header(record: BuildRecord) -> Markup:
    source = record.provenance
    revision = [" at ", code(source.revision)] if source.revision else []
    line = element(
        "p", "Build report of the bundle made from ", code(source.name), *revision, ", ", record.built, class_="muted"
    )
    return element("header", element("h1", source.name), line)
