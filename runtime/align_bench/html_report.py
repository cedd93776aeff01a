"""The page of a bench: one file that needs nothing but itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from align_bench import comparison, plots, summary
from align_bench.page.document import contents, document
from align_bench.page.markup import Markup, element
from align_bench.page.parts import code, facts, figure, section, table
from align_bench.record import END_TO_END, BenchRecord, Load, Timing
from align_bench.statistics import percentile

CONTENTS = (
    ("latency", "Latency"),
    ("stages", "Stages"),
    ("throughput", "Throughput"),
    ("load", "Under load"),
    ("starts", "Start and memory"),
    ("contests", "Against others"),
    ("machine", "Measured on"),
)


def page(record: BenchRecord) -> str:
    """The whole document; every figure in it is derived from the raw samples of `record`."""
    name = record.bundle["name"]
    sections = [_latency(record), _stages(record), _throughput(record), _load(record), _starts(record)]
    main = element("main", _doubts(record), *sections, _contests(record), _machine(record))
    line = element("p", "Bench of the bundle made from ", code(name), ", ", record.machine["date"], class_="muted")
    header = element("header", element("h1", name), line)
    return document(f"{name}: bench", header, contents(main, CONTENTS), main)


def _doubts(record: BenchRecord) -> Markup:
    found = summary.warnings(record)
    if not found:
        return Markup("")
    items = element("ul", *(element("li", warning) for warning in found))
    return element("div", element("strong", "Read with care"), items, class_="verdict failed")


def _legend(names: Iterable[str], filled: bool = False) -> Markup:
    items = [element("li", plots.key(index, filled), " ", name) for index, name in enumerate(names)]
    return element("ul", *items, class_="legend")


def _latency(record: BenchRecord) -> Markup:
    if not record.timings:
        return Markup("")
    charts = []
    for tower in _towers(record.timings):
        samples = {
            _short(timing): [1000 * value for value in timing.end_to_end]
            for timing in record.timings
            if timing.case.tower == tower
        }
        drawing = plots.distribution_chart(samples, "ms per call", f"Distribution of latencies of the {tower} tower")
        caption = (
            f"{tower.capitalize()}, end to end: the share of calls that took at most that long. The sign is the median."
        )
        charts.append(figure(drawing, caption, _legend(samples)))
    rows = summary.timing_rows(record)
    numbers = range(1, len(summary.TIMING_HEADINGS))
    return section(
        "latency", "Latency", table("Milliseconds per call", summary.TIMING_HEADINGS, rows, numbers), *charts
    )


def _stages(record: BenchRecord) -> Markup:
    if not record.timings:
        return Markup("")
    names = [name for name in summary.stage_names(record) if name != END_TO_END]
    rows = []
    for timing in record.timings:
        parts = {
            name: 1000 * median(timing.stages[name]) / timing.case.batch for name in names if name in timing.stages
        }
        longest = max(
            sum(1000 * median(series) / other.case.batch for name, series in other.stages.items() if name != END_TO_END)
            for other in record.timings
            if other.case.tower == timing.case.tower
        )
        ordered = {name: parts.get(name, 0.0) for name in names}
        whole = plots.number(1000 * median(timing.end_to_end) / timing.case.batch)
        shown = [plots.number(parts[name]) if name in parts else "—" for name in names]
        rows.append([str(timing.case), plots.stage_bar(ordered, longest), *shown, whole])
    headings = ["case", "", *names, END_TO_END]
    caption = (
        "Median milliseconds of one input by stage, each stage by itself. End to end, decoding and computing overlap"
    )
    chart = table(caption, headings, rows, range(2, len(headings)))
    return section("stages", "Stages", _legend(names, filled=True), chart)


def _throughput(record: BenchRecord) -> Markup:
    charts = []
    for tower in _towers(record.timings):
        lines: dict[str, list[tuple[float, float]]] = {}
        for timing in record.timings:
            if timing.case.tower == tower:
                name = f"{timing.case.precision} {timing.case.device}, {_size(timing)}"
                lines.setdefault(name, []).append((timing.case.batch, timing.case.batch / median(timing.end_to_end)))
        if any(len(line) > 1 for line in lines.values()):
            lines = {name: sorted(line) for name, line in lines.items()}
            drawing = plots.line_chart(lines, "inputs per call", "per second", f"Throughput of the {tower} tower")
            charts.append(figure(drawing, f"{tower.capitalize()}: inputs per second, end to end.", _legend(lines)))
    return section("throughput", "Throughput", *charts) if charts else Markup("")


def _load(record: BenchRecord) -> Markup:
    if not record.loads:
        return Markup("")
    charts = []
    for tower in dict.fromkeys(load.tower for load in record.loads):
        lines: dict[str, list[tuple[float, float]]] = {}
        for load in record.loads:
            if load.tower == tower and load.kind == "open":
                for title, share in (("p50", 0.5), ("p99", 0.99)):
                    name = f"{load.precision} {load.device}, {title}"
                    lines.setdefault(name, []).append((_rate(load), 1000 * percentile(load.latencies, share)))
        if lines:
            drawing = plots.line_chart(
                lines, "arrivals per second", "ms", f"Latency over load of the {tower} tower", False, True
            )
            caption = (
                f"{tower.capitalize()}: latency of single inputs that arrive at random, from the moment at which they "
                "were due; logarithmic."
            )
            charts.append(figure(drawing, caption, _legend(lines)))
    headings = summary.LOAD_HEADINGS
    rows = table("Milliseconds per input", headings, summary.load_rows(record), range(1, len(headings)))
    return section("load", "Under load", *charts, rows)


def _rate(load: Load) -> float:
    return 0.0 if load.rate is None else load.rate


def _starts(record: BenchRecord) -> Markup:
    if not record.starts:
        return Markup("")
    headings = summary.START_HEADINGS
    caption = f"Fresh processes, medians of {len(record.starts)} in all; the largest of their peaks of memory"
    return section("starts", "Start and memory", table(caption, headings, summary.start_rows(record), range(1, 6)))


def _contests(record: BenchRecord) -> Markup:
    if not record.contests:
        return Markup("")
    rows = [comparison.cells(row) for row in comparison.contest_rows(record.contests)]
    caption = "In turns on the same preprocessed inputs, all embeddings on the host. Above 1: this bundle is faster"
    return section("contests", "Against others", table(caption, comparison.HEADINGS, rows, (2, 4)))


def _machine(record: BenchRecord) -> Markup:
    pairs = [(key, _shown(value)) for key, value in record.machine.items() if value not in (None, {})]
    before, after = record.load_average
    pairs.append(("load average", f"{_shown(before)} before, {_shown(after)} after"))
    pairs.append(("manifest", f"sha256 {record.bundle['manifest_sha256']}"))
    pairs.append(("settings", _shown(record.settings)))
    return section("machine", "Measured on", facts(pairs))


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item if isinstance(item, str) else json.dumps(item)}" for key, item in value.items())
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _towers(timings: Sequence[Timing]) -> list[str]:
    return list(dict.fromkeys(timing.case.tower for timing in timings))


def _size(timing: Timing) -> str:
    return timing.case.size if timing.case.tower == "vision" else f"{timing.case.size} tokens"


def _short(timing: Timing) -> str:
    case = timing.case
    return f"{case.precision} {case.device}, batch {case.batch} of {_size(timing)}"
