"""The report of a build: ``report.html`` for people and ``report.json`` for machines, from the same record."""

from __future__ import annotations

import json
from pathlib import Path

from align_exporter.report.page import page
from align_exporter.report.record import BuildRecord
from align_runtime.manifest import REPORT_NAMES


def write_report(folder: Path, record: BuildRecord) -> None:
    """Writes `record` as ``report.html`` and ``report.json`` into `folder`. The same record gives the same bytes."""
    html_name, json_name = REPORT_NAMES
    text = json.dumps(record.to_json(), indent=1, allow_nan=False) + "\n"
    (folder / json_name).write_text(text, encoding="utf-8")
    (folder / html_name).write_text(page(record), encoding="utf-8")
