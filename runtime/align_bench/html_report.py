"""A record as one self-contained HTML page with charts; the tables are those of `align_bench.summary`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from align_bench import plots, summary
from align_bench.metrics import max_latency_of, throughput, warnings
from align_bench.page.components import code, facts, figure, section, table
from align_bench.page.document import contents, document
from align_bench.page.markup import Markup, element
from align_bench.record import END_TO_END, OPEN, BenchRecord, Case, Timing
from align_bench.statistics import percentile

CONTENTS = (
    ("latency", "Latency"),
    ("stages", "Stages"),
    ("throughput", "Throughput"),
    ("load", "Under load"),
    ("starts", "Start and memory"),
    ("peers", "Peers"),
    ("machine", "Machine and settings"),
)


def page(record: BenchRecord, max_latency_ms: float | None = None) -> str:
    """The whole document; every value in it is derived from the raw samples of `record`."""
    name = record.bundle["name"]
    bound = max_latency_of(record) if max_latency_ms is None else max_latency_ms
    sections = [_latency(record), _stages(record), _throughput(record), _load(record), _starts(record)]
    main = element("main", _verdict(record, bound), _warnings(record), *sections, _peers(record), _machine(record))
    line = element("p", "align-bench of the bundle ", code(name), ", ", record.machine["date"], class_="muted")
    header = element("header", element("h1", name), line)
    return document(f"{name}: align-bench", header, contents(main, CONTENTS), main)


def _verdict(record: BenchRecord, max_latency_ms: float | None) -> Markup:
    lines = summary.verdict_lines(record, max_latency_ms)
    return element("div", *(element("p", line) for line in lines), class_="verdict") if lines else Markup("")


def _warnings(record: BenchRecord) -> Markup:
    found = warnings(record)
    if not found:
        return Markup("")
    items = element("ul", *(element("li", warning) for warning in found))
    return element("div", element("strong", "Doubts about these results"), items, class_="verdict failed")


def _legend(names: Iterable[str], filled: bool = False) -> Markup:
    items = [element("li", plots.key(index, filled), " ", name) for index, name in enumerate(names)]
    return element("ul", *items, class_="legend")


def _rows(caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    return table(_sentence(caption), headings, rows, range(1, len(headings)))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _latency(record: BenchRecord) -> Markup:
    if not record.timings:
        return Markup("")
    charts = []
    for tower, timings in _by_tower(record).items():
        samples = {_short(timing.case): [1000 * value for value in timing.end_to_end] for timing in timings}
        drawing = plots.distribution_chart(samples, "ms per call", f"Distribution of latencies of the {tower} tower")
        caption = f"{tower.capitalize()}, end to end: the share of calls that took at most this long; the mark is p50."
        charts.append(figure(drawing, caption, _legend(samples)))
    rows = _rows(summary.LATENCY_TITLE, summary.TIMING_HEADINGS, summary.timing_rows(record))
    return section("latency", "Latency", rows, *charts)


def _stages(record: BenchRecord) -> Markup:
    if not record.timings:
        return Markup("")
    names = summary.stage_names(record)
    singles = [name for name in names if name != END_TO_END]
    rows = []
    for timing, (case, *cells) in zip(record.timings, summary.stage_rows(record), strict=True):
        medians = {name: 1000 * median(timing.stages[name]) if name in timing.stages else 0.0 for name in singles}
        rows.append([case, plots.stage_bar(medians), *cells])
    headings = ["case", "share of each stage", *names]
    chart = table(_sentence(summary.STAGE_TITLE), headings, rows, range(2, len(headings)))
    return section("stages", "Stages", _legend(singles, filled=True), chart)


def _throughput(record: BenchRecord) -> Markup:
    charts = []
    for tower, timings in _by_tower(record).items():
        lines: dict[str, list[tuple[float, float]]] = {}
        for timing in timings:
            name = f"{timing.case.precision} {timing.case.device}, {timing.case.size_text}"
            lines.setdefault(name, []).append((timing.case.batch, throughput(timing)))
        if any(len(line) > 1 for line in lines.values()):
            lines = {name: sorted(line) for name, line in lines.items()}
            drawing = plots.line_chart(lines, "batch", "inputs/s", f"Throughput of the {tower} tower")
            charts.append(figure(drawing, f"{tower.capitalize()}: inputs per second, end to end.", _legend(lines)))
    return section("throughput", "Throughput", *charts) if charts else Markup("")


def _load(record: BenchRecord) -> Markup:
    if not record.loads:
        return Markup("")
    charts = []
    for tower in dict.fromkeys(load.tower for load in record.loads):
        lines: dict[str, list[tuple[float, float]]] = {}
        for load in record.loads:
            if load.tower == tower and load.kind == OPEN and load.rate is not None:
                for title, share in (("p50", 0.5), ("p99", 0.99)):
                    name = f"{load.precision} {load.device}, {title}"
                    lines.setdefault(name, []).append((load.rate, 1000 * percentile(load.latencies, share)))
        if lines:
            description = f"Latency over load of the {tower} tower"
            drawing = plots.line_chart(lines, "arrivals/s", "ms", description, log_across=False, log_down=True)
            caption = (
                f"{tower.capitalize()}: latency of single inputs that arrive at random (open loop), from the moment at "
                "which they were due; logarithmic."
            )
            charts.append(figure(drawing, caption, _legend(lines)))
    rows = _rows(summary.LOAD_TITLE, summary.LOAD_HEADINGS, summary.load_rows(record))
    return section("load", "Under load", *charts, rows)


def _starts(record: BenchRecord) -> Markup:
    if not record.starts:
        return Markup("")
    rows = _rows(summary.START_TITLE, summary.START_HEADINGS, summary.start_rows(record))
    return section("starts", "Start and memory", rows)


def _peers(record: BenchRecord) -> Markup:
    if not record.peer_comparisons:
        return Markup("")
    caption = f"{_sentence(summary.PEER_TITLE)} Above 1 this bundle is faster."
    rows = table(caption, summary.PEER_HEADINGS, summary.peer_rows(record), (2, 4))
    return section("peers", "Peers", rows)


def _machine(record: BenchRecord) -> Markup:
    machine = dict(record.machine)
    memory = machine.pop("memory_bytes", None)
    if isinstance(memory, int):
        machine["memory"] = f"{memory / 2**30:.1f} GiB"
    pairs = [(key, _shown(value)) for key, value in machine.items() if value not in (None, {})]
    before, after = record.load_average
    pairs.append(("load average", f"{_shown(before)} before, {_shown(after)} after"))
    pairs.append(("manifest", f"sha256 {record.bundle['manifest_sha256']}"))
    pairs.append(("settings", _shown(record.settings)))
    return section("machine", "Machine and settings", facts(pairs))


def _shown(value: object) -> str:
    """As text; of a mapping what is set, of a list its items."""
    if isinstance(value, Mapping):
        given = {key: item for key, item in value.items() if item is not None and item not in ([], ())}
        return ", ".join(f"{key.replace('_', ' ')} {_shown(item)}" for key, item in given.items())
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return "unknown" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def _by_tower(record: BenchRecord) -> dict[str, list[Timing]]:
    towers: dict[str, list[Timing]] = {}
    for timing in record.timings:
        towers.setdefault(timing.case.tower, []).append(timing)
    return towers


def _short(case: Case) -> str:
    return f"{case.precision} {case.device}, batch {case.batch} of {case.size_text}"
