"""Writes, parses and changes reports in tests."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from align_exporter.report.record import BuildRecord, GraphRecord
from align_exporter.report.render import write_report

ATTACK = "<script>alert('x')</script>\"&"
VOID = ("meta", "wbr")


class Page(HTMLParser):
    """A parsed page: its elements in order, its text, and faults of its nesting."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.faults: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> closes another element")

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def written(folder: Path, record: BuildRecord) -> tuple[str, dict[str, Any]]:
    write_report(folder, record)
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return (folder / "report.html").read_text(encoding="utf-8"), content


def with_graph(record: BuildRecord, index: int, changed: GraphRecord) -> BuildRecord:
    return replace(record, graphs=(*record.graphs[:index], changed, *record.graphs[index + 1 :]))


def with_parity(record: GraphRecord, **values: float) -> GraphRecord:
    return replace(record, graph=replace(record.graph, parity=replace(record.graph.parity, **values)))


def svgs(page: str) -> list[str]:
    """Returns all outermost SVG elements of `page`."""
    found, depth, start = [], 0, 0
    for tag in re.finditer(r"<(/?)svg\b", page):
        if tag[1]:
            depth -= 1
            if depth == 0:
                found.append(page[start : tag.start()] + "</svg>")
        else:
            start = tag.start() if depth == 0 else start
            depth += 1
    return found
