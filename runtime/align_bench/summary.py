"""A record as text: a verdict and a short table by default, every table on request.

The rows are shared with the HTML page, so that both show the same values in the same unit: milliseconds per call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from align_bench.metrics import (
    PERCENTILES,
    Verdict,
    latency_ms,
    max_latency_of,
    peer_speedups,
    start_seconds,
    starts_by_variant,
    throughput,
    verdicts,
    warnings,
)
from align_bench.record import DECODE, END_TO_END, PREPROCESS, TOKENIZE, BenchRecord, Timing
from align_bench.statistics import Comparison, median_interval
from align_runtime.backends.runner import STAGES
from align_runtime.console import table

MAX_LINES = 40
STAGE_ORDER = (DECODE, PREPROCESS, TOKENIZE, *STAGES, END_TO_END)
LATENCY_TITLE = "milliseconds per call, end to end"
STAGE_TITLE = "median milliseconds per call by stage; end to end the stages overlap where they can"
LOAD_TITLE = "milliseconds per input under load"
START_TITLE = "fresh processes, medians; the largest peak memory"
PEER_TITLE = "against peers, interleaved on the same preprocessed inputs"
SHORT_HEADINGS = ("case", "p50", "p95", "p99", "inputs/s")
TIMING_HEADINGS = ("case", *PERCENTILES, "95 % interval of p50", "inputs/s", "samples")
START_HEADINGS = ("variant", "import", "load", "first image", "first text", "peak memory")
LOAD_HEADINGS = ("under load", *PERCENTILES, "inputs/s", "samples")
PEER_HEADINGS = ("case", "peer", "speedup", "95 % interval", "spread")


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds with three digits or more: ``0.123``, ``12.3``, ``1234``."""
    return digits(1000 * seconds)


def digits(value: float) -> str:
    """Three digits or more: ``0.123``, ``12.3``, ``1234``."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def _percentiles(samples: Sequence[float]) -> list[str]:
    return [digits(value) for value in latency_ms(samples).values()]


def timing_rows(record: BenchRecord) -> list[list[str]]:
    """End to end, by case, in milliseconds per call; ``(!)`` marks a case that was not steady."""
    return [[_title(timing), *_timing_cells(timing)] for timing in record.timings]


def _title(timing: Timing) -> str:
    return f"{timing.case}{'' if timing.stable else ' (!)'}"


def _timing_cells(timing: Timing) -> list[str]:
    samples = timing.end_to_end
    low, high = median_interval(samples)
    interval = f"{milliseconds(low)} … {milliseconds(high)}" if math.isfinite(high) else "too few samples"
    return [*_percentiles(samples), interval, f"{throughput(timing):.1f}", str(len(samples))]


def stage_rows(record: BenchRecord) -> list[list[str]]:
    """Median milliseconds of every stage, by case."""
    names = stage_names(record)
    return [
        [
            str(timing.case),
            *(milliseconds(median(timing.stages[name])) if name in timing.stages else "—" for name in names),
        ]
        for timing in record.timings
    ]


def stage_names(record: BenchRecord) -> list[str]:
    """The stages of all cases, in the order of the work."""
    names = dict.fromkeys(name for timing in record.timings for name in timing.stages)
    return sorted(names, key=lambda name: STAGE_ORDER.index(name) if name in STAGE_ORDER else len(STAGE_ORDER))


def start_rows(record: BenchRecord) -> list[list[str]]:
    """Medians over the fresh processes of each variant."""
    rows = []
    for (precision, device), starts in starts_by_variant(record.starts).items():
        steps = [start_seconds(start) for start in starts]
        seconds = [median(step.get(name, math.nan) for step in steps) for name in START_HEADINGS[1:5]]
        cells = ("—" if math.isnan(value) else f"{value:.3f} s" for value in seconds)
        peak = max(start.peak_bytes for start in starts)
        rows.append([f"{precision} {device}", *cells, f"{peak / 2**20:.0f} MiB"])
    return rows


def load_rows(record: BenchRecord) -> list[list[str]]:
    """Latencies under load in milliseconds."""
    return [
        [str(load), *_percentiles(load.latencies), f"{load.throughput:.1f}", str(len(load.latencies))]
        for load in record.loads
    ]


def peer_rows(record: BenchRecord) -> list[list[str]]:
    """Speedups over the peers; where one is within noise, the reason stands in its place."""
    return [
        [str(comparison.case), peer, *_speedup_cells(found)]
        for comparison in record.peer_comparisons
        for peer, found in peer_speedups(comparison).items()
    ]


def _speedup_cells(found: Comparison) -> list[str]:
    if found.within_noise:
        return ["within noise", found.within_noise, f"{found.spread:.1%}"]
    return [f"{found.ratio:.3f}", f"{found.low:.3f} … {found.high:.3f}", f"{found.spread:.1%}"]


def verdict_lines(record: BenchRecord, max_latency_ms: float | None) -> list[str]:
    """A sentence for each tower and size."""
    return [verdict_line(verdict) for verdict in verdicts(record, max_latency_ms)]


def verdict_line(verdict: Verdict) -> str:
    """``vision 640x480: best throughput 18.2 images/s (int8 cpu, batch 8, p95 430 ms); fastest single image: …``."""
    item = "image" if verdict.tower == "vision" else "text"
    bound = "" if verdict.max_latency_ms is None else f" within {verdict.max_latency_ms:g} ms"
    best, fastest = verdict.best, verdict.fastest
    line = f"{verdict.tower} {verdict.size}: "
    if best is None:
        line += f"nothing has its p95{bound}"
    else:
        rate = f"{digits(best.items_per_second)} {item}s/s"
        line += f"best throughput{bound}: {rate} ({best.how}, p95 {digits(best.p95_ms)} ms)"
    if fastest is not None:
        line += f"; fastest single {item}: p50 {digits(fastest.p50_ms)} ms ({fastest.how.partition(',')[0]})"
    return line


def header(record: BenchRecord) -> list[str]:
    """What was measured, and on what."""
    machine = record.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return [
        f"{record.bundle['name']} (manifest {record.bundle['manifest_sha256'][:12]}), {machine['date']}",
        f"{machine['processor']}, {machine['cores']} cores; {versions}",
    ]


def as_text(record: BenchRecord, full: bool = False, max_latency_ms: float | None = None) -> str:
    """The record as text: at most `MAX_LINES` lines that end in the verdicts, or everything if `full`."""
    bound = max_latency_of(record) if max_latency_ms is None else max_latency_ms
    doubts = [f"! {warning}" for warning in warnings(record)]
    conclusions = verdict_lines(record, bound)
    if full:
        return "\n\n".join(["\n".join(header(record)), *_full_tables(record), "\n".join([*doubts, *conclusions])])
    ending = [*doubts, *_cut(conclusions, 12)]
    sections = _short_sections(record)
    fixed = len(header(record)) + 1 + len(ending) + sum(len(lines) + 1 for lines in sections[1:])
    sections[0] = _cut(sections[0], MAX_LINES - fixed - 1)
    lines = header(record)
    for section in sections:
        lines += ["", *section] if section else []
    return "\n".join(_cut([*lines, ""], MAX_LINES - len(ending)) + ending)


def _short_sections(record: BenchRecord) -> list[list[str]]:
    """Latency first, then what else was measured, each as lines."""
    latency = [
        [_title(timing), cells[0], cells[2], cells[3], cells[-2]]
        for timing, cells in ((timing, _timing_cells(timing)) for timing in record.timings)
    ]
    sections = [[LATENCY_TITLE, *_lines(SHORT_HEADINGS, latency)] if latency else []]
    if record.starts:
        sections.append([START_TITLE, *_cut(_lines(START_HEADINGS, start_rows(record)), 6)])
    if record.peer_comparisons:
        sections.append([PEER_TITLE, *_cut(_lines(PEER_HEADINGS, peer_rows(record)), 9)])
    if record.loads:
        sections.append([f"{len(record.loads)} load loops and the stages of every case: --full, --html"])
    return sections


def _cut(lines: list[str], most: int) -> list[str]:
    """`lines`, or the first of them and a note that there are more."""
    if len(lines) <= most:
        return lines
    kept = max(most - 1, 0)
    return [*lines[:kept], f"… {len(lines) - kept} more lines: --full"]


def _full_tables(record: BenchRecord) -> list[str]:
    stages = stage_names(record)
    tables = [
        (LATENCY_TITLE, TIMING_HEADINGS, timing_rows(record)),
        (STAGE_TITLE, ("case", *stages), stage_rows(record)),
        (START_TITLE, START_HEADINGS, start_rows(record)),
        (LOAD_TITLE, LOAD_HEADINGS, load_rows(record)),
        (PEER_TITLE, PEER_HEADINGS, peer_rows(record)),
    ]
    return ["\n".join([title, *_lines(headings, rows)]) for title, headings, rows in tables if rows]


def _lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return table(headings, rows, right=range(1, len(headings)))
