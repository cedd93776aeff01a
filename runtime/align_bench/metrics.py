"""Values derived from the raw samples of a record: percentiles, throughput, verdicts, doubts; as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from align_bench.record import END_TO_END, BenchRecord, PeerComparison, Start, Timing
from align_bench.statistics import Comparison, compare_paired, median_interval, percentile

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}
UNITS = {  # of the raw samples; the names of derived values end in their units
    "timings[].stages": "seconds",
    "starts[].import_seconds": "seconds",
    "starts[].load_seconds": "seconds",
    "starts[].first_seconds": "seconds",
    "starts[].peak_bytes": "bytes",
    "loads[].rate": "inputs/s",
    "loads[].seconds": "seconds",
    "loads[].latencies": "seconds",
    "peer_comparisons[].seconds": "seconds",
}
CSV_COLUMNS = (
    "measurement", "tower", "precision", "device", "batch", "size", "what", "samples",
    *(f"{name}_ms" for name in PERCENTILES), "items_per_second", "peak_bytes",
)  # fmt: skip


def latency_ms(samples: Sequence[float]) -> dict[str, float]:
    """Percentiles of `samples` in seconds, as milliseconds by ``p50_ms`` … ``max_ms``."""
    return {f"{name}_ms": 1000 * percentile(samples, share) for name, share in PERCENTILES.items()}


def throughput(timing: Timing) -> float:
    """Inputs per second of calls one after another: the batch over the median call."""
    return timing.case.batch / median(timing.end_to_end)


@dataclass(frozen=True)
class Best:
    """A way to run one tower: how many inputs a second, at which latency.

    Attributes:
        how: ``"int8 cpu, batch 8"``, ``"int8 cpu, 4 clients"``.
        p95_ms: of the call that a user waits for.
    """

    how: str
    items_per_second: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class Verdict:
    """The best of what was measured for inputs of one size.

    Attributes:
        max_latency_ms: bound on the p95 of `best`; None: no bound.
        best: highest throughput within the bound; None where nothing keeps it.
        fastest: lowest median of a single input; None where no batch of 1 was measured.
    """

    tower: str
    size: str
    max_latency_ms: float | None
    best: Best | None
    fastest: Best | None


def verdicts(record: BenchRecord, max_latency_ms: float | None) -> list[Verdict]:
    """A verdict for each tower and size: texts of different lengths do not compete."""
    groups: dict[tuple[str, str], list[Timing]] = {}
    for timing in record.timings:
        groups.setdefault((timing.case.tower, timing.case.size_text), []).append(timing)
    found = []
    for (tower, size), timings in groups.items():
        ways = [_best_of(timing) for timing in timings]
        singles = [way for way, timing in zip(ways, timings, strict=True) if timing.case.batch == 1]
        within = [way for way in ways if max_latency_ms is None or way.p95_ms <= max_latency_ms]
        best = max(within, key=lambda way: way.items_per_second, default=None)
        fastest = min(singles, key=lambda way: way.p50_ms, default=None)
        found.append(Verdict(tower, size, max_latency_ms, best, fastest))
    return found


def _best_of(timing: Timing) -> Best:
    case, latency = timing.case, latency_ms(timing.end_to_end)
    how = f"{case.precision} {case.device}, batch {case.batch}"
    return Best(how, throughput(timing), latency["p50_ms"], latency["p95_ms"])


def max_latency_of(record: BenchRecord) -> float | None:
    """The bound that the command was given, in milliseconds."""
    value = record.settings.get("max_latency_ms")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def starts_by_variant(starts: Iterable[Start]) -> dict[tuple[str, str], list[Start]]:
    """The fresh processes by precision and device."""
    groups: dict[tuple[str, str], list[Start]] = {}
    for start in starts:
        groups.setdefault((start.precision, start.device), []).append(start)
    return groups


def start_seconds(start: Start) -> dict[str, float]:
    """The steps of a start, in order; without a first call that was not made."""
    steps = {"import": start.import_seconds, "load": start.load_seconds}
    firsts = {"vision": "first image", "text": "first text"}
    return steps | {firsts[tower]: start.first_seconds[tower] for tower in firsts if tower in start.first_seconds}


def peer_speedups(comparison: PeerComparison) -> dict[str, Comparison]:
    """How many times as fast as each peer the bundle is."""
    ours, *peers = comparison.seconds
    return {peer: compare_paired(comparison.seconds[peer], comparison.seconds[ours]) for peer in peers}


def warnings(record: BenchRecord) -> list[str]:
    """What makes the results doubtful."""
    found = []
    before, _ = record.load_average
    if before is not None and before > 0.25 * int(record.machine["cores"]):
        found.append(f"load average {before:.1f} before the first run: other processes disturb the results")
    if unstable := sum(not timing.stable for timing in record.timings):
        found.append(f"{unstable} of {len(record.timings)} cases, marked (!), were not steady after the warm-up")
    if any(len(timing.end_to_end) < 100 for timing in record.timings):
        found.append("p99 is the largest sample where there are fewer than 100 samples")
    return found


def summarize(record: BenchRecord, max_latency_ms: float | None) -> dict[str, Any]:
    """The derived values as JSON values; units are in the names of the keys."""
    return {
        "verdicts": [asdict(verdict) for verdict in verdicts(record, max_latency_ms)],
        "warnings": warnings(record),
        "timings": [_timing_summary(timing) for timing in record.timings],
        "starts": [
            {
                "precision": precision,
                "device": device,
                "processes": len(starts),
                "p50_ms": {step: 1000 * value for step, value in _median_steps(starts).items()},
                "peak_bytes": max(start.peak_bytes for start in starts),
            }
            for (precision, device), starts in starts_by_variant(record.starts).items()
        ],
        "loads": [
            {"load": str(load), "samples": len(load.latencies), "items_per_second": load.throughput}
            | latency_ms(load.latencies)
            for load in record.loads
        ],
        "peers": [
            {"case": str(comparison.case), "peer": peer, "speedup": speedup.ratio}
            | {"low": _finite(speedup.low), "high": _finite(speedup.high), "within_noise": speedup.within_noise}
            for comparison in record.peer_comparisons
            for peer, speedup in peer_speedups(comparison).items()
        ],
    }


def _timing_summary(timing: Timing) -> dict[str, Any]:
    low, high = median_interval(timing.end_to_end)
    return {
        "case": str(timing.case),
        "samples": len(timing.end_to_end),
        "items_per_second": throughput(timing),
        **latency_ms(timing.end_to_end),
        "p50_low_ms": _finite(1000 * low),
        "p50_high_ms": _finite(1000 * high),
        "stages_p50_ms": {stage: 1000 * median(samples) for stage, samples in timing.stages.items()},
    }


def _median_steps(starts: Sequence[Start]) -> dict[str, float]:
    steps = [start_seconds(start) for start in starts]
    return {step: median(values[step] for values in steps if step in values) for step in steps[0]}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def to_json(record: BenchRecord, max_latency_ms: float | None) -> dict[str, Any]:
    """The whole result file: raw samples, units and what is derived."""
    return record.to_json() | {"units": UNITS, "summary": summarize(record, max_latency_ms)}


def to_csv(record: BenchRecord) -> str:
    """A header and one row per stage of a case, per load and per step of a start; empty where a column has no value."""
    rows: list[dict[str, Any]] = []
    for timing in record.timings:
        case = timing.case
        about = {"measurement": "latency"} | {key: getattr(case, key) for key in ("tower", "precision", "device")}
        about |= {"batch": case.batch, "size": case.size}
        for stage, samples in timing.stages.items():
            row = about | {"what": stage, "samples": len(samples)} | latency_ms(samples)
            rows.append(row | ({"items_per_second": throughput(timing)} if stage == END_TO_END else {}))
    for load in record.loads:
        about = {"measurement": f"{load.kind} loop"} | {
            key: getattr(load, key) for key in ("tower", "precision", "device")
        }
        about |= {"batch": 1, "what": load.load_text, "samples": len(load.latencies)}
        rows.append(about | latency_ms(load.latencies) | {"items_per_second": load.throughput})
    for (precision, device), starts in starts_by_variant(record.starts).items():
        about = {"measurement": "start", "precision": precision, "device": device}
        for step in start_seconds(starts[0]):
            samples = tuple(start_seconds(start)[step] for start in starts)
            rows.append(about | {"what": step, "samples": len(samples)} | latency_ms(samples))
        peak = max(start.peak_bytes for start in starts)
        rows.append(about | {"what": "peak memory", "samples": len(starts), "peak_bytes": peak})
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
