"""A record as lines: what the raw samples say, derived here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from align_bench.record import BenchRecord, Load, Timing
from align_bench.statistics import median_interval, percentile
from align_runtime.console import table

SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}
TIMING_HEADINGS = ("case", *SHARES, "95 % interval of p50", "items/s", "samples")
START_HEADINGS = ("variant", "import", "load", "first image", "first text", "peak memory")
LOAD_HEADINGS = ("under load", *SHARES, "answered/s", "inputs")


def milliseconds(seconds: float) -> str:
    """Three digits or more: ``0.123``, ``12.3``, ``1234``."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def timing_rows(record: BenchRecord) -> list[list[str]]:
    """End to end, by case, milliseconds per call."""
    return [[_title(timing), *_figures(timing)] for timing in record.timings]


def _title(timing: Timing) -> str:
    return f"{timing.case}{'' if timing.stable else ' (!)'}"


def _figures(timing: Timing) -> list[str]:
    samples = timing.end_to_end
    low, high = median_interval(samples)
    interval = f"{milliseconds(low)} … {milliseconds(high)}" if math.isfinite(high) else "too few samples"
    return [*_percentiles(samples), interval, f"{timing.case.batch / median(samples):.1f}", str(len(samples))]


def _percentiles(samples: Sequence[float]) -> list[str]:
    return [milliseconds(percentile(samples, share)) for share in SHARES.values()]


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
    names = list(dict.fromkeys(name for timing in record.timings for name in timing.stages))
    order = ("decode", "preprocess", "tokenise", "host to device", "compute", "device to host", "end to end")
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def start_rows(record: BenchRecord) -> list[list[str]]:
    """Medians over the fresh processes of each variant."""
    rows = []
    for precision, device in dict.fromkeys((start.precision, start.device) for start in record.starts):
        starts = [start for start in record.starts if (start.precision, start.device) == (precision, device)]
        seconds = [
            median(start.import_seconds for start in starts),
            median(start.load_seconds for start in starts),
            *(median(start.first_seconds.get(tower, math.nan) for start in starts) for tower in ("vision", "text")),
        ]
        peak = max(start.peak_bytes for start in starts)
        rows.append([f"{precision} {device}", *(f"{value:.3f} s" for value in seconds), f"{peak / 2**20:.0f} MiB"])
    return rows


def load_title(load: Load) -> str:
    """``vision fp32 cpu, 4 clients``, ``vision fp32 cpu, 12.3/s arrive``."""
    how = f"{load.clients} clients" if load.rate is None else f"{load.rate:.1f}/s arrive"
    return f"{load.tower} {load.precision} {load.device}, {how}"


def load_rows(record: BenchRecord) -> list[list[str]]:
    """Latencies under load in milliseconds."""
    return [
        [load_title(load), *_percentiles(load.latencies), f"{load.throughput:.1f}", str(len(load.latencies))]
        for load in record.loads
    ]


def warnings(record: BenchRecord) -> list[str]:
    """What makes the figures doubtful."""
    found = [
        f"{timing.case}: not steady after {timing.warmup_runs} warm-up runs"
        for timing in record.timings
        if not timing.stable
    ]
    before, _ = record.load_average
    if before is not None and before > 0.25 * int(record.machine.get("cores", 1)):
        found.insert(0, f"the load average was {before:.1f} before the first run; other processes disturb every figure")
    few = [timing for timing in record.timings if len(timing.end_to_end) < 100]
    if few:
        found.append("p99 is the largest sample where there are fewer than 100")
    return found


def as_text(record: BenchRecord) -> str:
    """Everything as tables."""
    machine = record.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    parts = [
        f"{record.bundle['name']} (manifest {record.bundle['manifest_sha256'][:12]}) on {machine['processor']}, "
        f"{machine['cores']} cores; {versions}; {machine['date']}",
        "milliseconds per call, end to end",
        table(TIMING_HEADINGS, timing_rows(record), right=range(1, len(TIMING_HEADINGS))),
        "median milliseconds by stage; the whole call overlaps them where it can",
        table(("case", *stage_names(record)), stage_rows(record), right=range(1, 1 + len(stage_names(record)))),
    ]
    if record.starts:
        parts.append(table(START_HEADINGS, start_rows(record), right=range(1, len(START_HEADINGS))))
    if record.loads:
        parts.append(table(LOAD_HEADINGS, load_rows(record), right=range(1, len(LOAD_HEADINGS))))
    return "\n\n".join([*parts, *(f"! {warning}" for warning in warnings(record))])
