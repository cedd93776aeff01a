"""Compares results of ``align-bench run``: latency, latency under load, start and peak memory, case by case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from align_bench.metrics import start_seconds, starts_by_variant
from align_bench.record import CLOSED, BenchRecord, Case, Load
from align_bench.statistics import Comparison, compare_ranges, compare_separate
from align_runtime.console import table
from align_runtime.errors import ConfigurationError

MUST_AGREE = ("processor", "cores", "gpu", "governor")
LATENCY, LOAD, START, MEMORY = METRICS = ("latency", "load", "start", "memory")
MEMORY_SAMPLES = 3  # fresh processes on each side; peak memory hardly varies between them
SAME_RATE = 0.1  # arrival rates that differ by more than this share are not compared
HEADINGS = ("metric", "case", "change", "95 % interval", "verdict")
Samples = Mapping[tuple[str, str], tuple[float, ...]]


@dataclass(frozen=True)
class Row:
    """`comparison` of one metric and case of a candidate with the baseline."""

    candidate: str
    metric: str
    case: str
    comparison: Comparison

    @property
    def slower(self) -> bool:
        """Whether the candidate is shown to be slower, or to take more memory."""
        return self.comparison.within_noise is None and self.comparison.change > 0

    @property
    def verdict(self) -> str:
        if self.comparison.within_noise is not None:
            return "within noise"
        more, less = ("more", "less") if self.metric == MEMORY else ("slower", "faster")
        return more if self.slower else less


@dataclass(frozen=True)
class Missing:
    """A case that only one side has.

    Attributes:
        side: ``"baseline"`` or ``"candidate"``: the side that lacks it.
    """

    candidate: str
    metric: str
    case: str
    side: str


@dataclass(frozen=True)
class Report:
    """All candidates against the baseline.

    Attributes:
        incomparable: load loops whose arrival rates differ too much, as sentences.
    """

    baseline: str
    rows: tuple[Row, ...]
    missing: tuple[Missing, ...]
    incomparable: tuple[str, ...]

    def regressions(self, tolerance: float) -> list[Row]:
        """Rows that are shown to be worse, by more than the share `tolerance` of the baseline."""
        return [row for row in self.rows if row.slower and row.comparison.change > tolerance]

    def fails(self, tolerance: float) -> bool:
        """Whether there is a regression beyond `tolerance`, or a case that only one side has."""
        return bool(self.missing or self.regressions(tolerance))

    def to_json(self, tolerance: float | None) -> dict[str, Any]:
        rows = [asdict(row) | {"change": row.comparison.change, "verdict": row.verdict} for row in self.rows]
        return {
            "baseline": self.baseline,
            "rows": rows,
            "missing": [asdict(missing) for missing in self.missing],
            "incomparable": list(self.incomparable),
            "tolerance": tolerance,
            "failed": tolerance is not None and self.fails(tolerance),
        }


def compare_records(records: Sequence[tuple[str, BenchRecord]], across_machines: bool = False) -> Report:
    """Compares every later record, by name, with the first one.

    Raises:
        ConfigurationError: fewer than two records, different hardware (unless `across_machines`), or no case in common.
    """
    if len(records) < 2:
        raise ConfigurationError(f"expected a baseline and at least one candidate, got {len(records)} result")
    (baseline, base), *candidates = records
    rows: list[Row] = []
    missing: list[Missing] = []
    incomparable: list[str] = []
    for name, record in candidates:
        if not across_machines:
            _check_hardware(baseline, base, name, record)
        rates, other_rates = _rates(base), _rates(record)
        before, after = _samples(base), _samples(record)
        if not before.keys() & after.keys():
            raise ConfigurationError(f"{baseline} and {name} have no case in common; run both with the same options")
        for key in dict.fromkeys([*before, *after]):
            metric, case = key
            if key not in before or key not in after:
                missing.append(Missing(name, metric, case, "candidate" if key in before else "baseline"))
            elif not _same_rate(rates.get(case), other_rates.get(case)):
                incomparable.append(f"{name}: {case}: {rates[case]:.1f}/s against {other_rates[case]:.1f}/s")
            else:
                rows.append(Row(name, metric, case, _compare(metric, before[key], after[key])))
    return Report(baseline, tuple(rows), tuple(missing), tuple(incomparable))


def _check_hardware(baseline: str, base: BenchRecord, name: str, record: BenchRecord) -> None:
    for key in MUST_AGREE:
        here, there = base.machine.get(key), record.machine.get(key)
        if here != there:
            raise ConfigurationError(
                f"{baseline} was measured with {key} {here!r}, {name} with {there!r}; times of different machines do "
                "not compare programs (--across-machines compares them all the same)"
            )


def _compare(metric: str, before: Sequence[float], after: Sequence[float]) -> Comparison:
    compare = partial(compare_ranges, minimum=MEMORY_SAMPLES) if metric == MEMORY else compare_separate
    return compare(before, after)


def _samples(record: BenchRecord) -> Samples:
    """Samples by metric and case: seconds, and bytes of memory."""
    samples = {(LATENCY, _case_name(timing.case)): timing.end_to_end for timing in record.timings}
    samples |= {(LOAD, name): load.latencies for name, load in _named_loads(record).items()}
    for (precision, device), starts in starts_by_variant(record.starts).items():
        for step in start_seconds(starts[0]):
            values = tuple(found[step] for start in starts if step in (found := start_seconds(start)))
            samples[START, f"{precision} {device}, {step}"] = values
        samples[MEMORY, f"{precision} {device}, peak"] = tuple(float(start.peak_bytes) for start in starts)
    return samples


def _case_name(case: Case) -> str:
    """The case with its threads and streams: a result with other ones is another case."""
    threads = "all cores" if case.threads is None else f"{case.threads} threads"
    return f"{case}, {threads}, {case.streams} streams"


def _named_loads(record: BenchRecord) -> dict[str, Load]:
    """Loads by name.

    An open loop is named after its place among those of its tower and variant: its rate is a share of what the closed
    loops achieved and differs from run to run.
    """
    named: dict[str, Load] = {}
    counts: dict[str, int] = {}
    for load in record.loads:
        variant = f"{load.tower} {load.precision} {load.device}"
        if load.kind == CLOSED:
            named[str(load)] = load
        else:
            counts[variant] = counts.get(variant, 0) + 1
            named[f"{variant}, open loop {counts[variant]}"] = load
    return named


def _rates(record: BenchRecord) -> dict[str, float]:
    return {name: load.rate for name, load in _named_loads(record).items() if load.rate is not None}


def _same_rate(one: float | None, other: float | None) -> bool:
    return one is None or other is None or abs(one - other) <= SAME_RATE * max(one, other)


def as_text(report: Report, tolerance: float | None = None) -> str:
    """A table for each candidate, what could not be compared, and a verdict."""
    parts = []
    for candidate in dict.fromkeys(row.candidate for row in report.rows):
        rows = [_cells(row) for row in report.rows if row.candidate == candidate]
        parts.append("\n".join([f"{candidate} against {report.baseline}", *table(HEADINGS, rows, right=(2,))]))
    lacking = [f"! {row.candidate}: {row.metric}: {row.case}: missing in the {row.side}" for row in report.missing]
    notes = [*lacking, *(f"! not compared, other arrival rates: {line}" for line in report.incomparable)]
    if notes:
        parts.append("\n".join(notes))
    return "\n\n".join([*parts, _conclusion(report, tolerance)])


def _cells(row: Row) -> list[str]:
    """A change within noise is not quoted."""
    found = row.comparison
    if found.within_noise is not None:
        return [row.metric, row.case, "", found.within_noise, row.verdict]
    interval = f"{1 / found.high - 1:+.1%} … {1 / found.low - 1:+.1%}"
    return [row.metric, row.case, f"{found.change:+.1%}", interval, row.verdict]


def _conclusion(report: Report, tolerance: float | None) -> str:
    slower = report.regressions(0)
    better = sum(not row.slower and row.comparison.within_noise is None for row in report.rows)
    counts = f"{len(slower)} slower or larger, {better} faster or smaller, "
    counts += f"{len(report.rows) - len(slower) - better} within noise, {len(report.missing)} missing on one side"
    if tolerance is None:
        return f"{counts}; --fail-if-slower makes this a gate"
    beyond = len(report.regressions(tolerance))
    result = "FAILED" if report.fails(tolerance) else "passed"
    return f"{counts}; {result}: {beyond} beyond {tolerance:.1%}, {len(report.missing)} missing"
