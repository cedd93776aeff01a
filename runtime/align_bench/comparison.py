"""Records against each other, and contestants within one: ratios that may be quoted, and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from align_bench.contest import OURS
from align_bench.record import BenchRecord, Case, Contest
from align_bench.statistics import Comparison, compare_apart, compare_paired
from align_runtime.console import table
from align_runtime.errors import ConfigurationError

MUST_AGREE = ("processor", "cores", "gpu", "governor")
HEADINGS = ("case", "against", "times as fast", "95 % interval", "spread")


@dataclass(frozen=True)
class Row:
    """`comparison` of `subject` with `other` on `case`."""

    case: Case
    subject: str
    other: str
    comparison: Comparison


def compare_records(records: Sequence[tuple[str, BenchRecord]], across_machines: bool = False) -> list[Row]:
    """Every later record against the first one, case by case, end to end; the names say which is which.

    Raises:
        ConfigurationError: fewer than two records, other hardware (unless `across_machines`), or no case in common.
    """
    if len(records) < 2:
        raise ConfigurationError("a comparison needs two records or more")
    (base_name, base), *others = records
    rows = []
    for name, record in others:
        for key in MUST_AGREE:
            here, there = base.machine.get(key), record.machine.get(key)
            if here != there and not across_machines:
                raise ConfigurationError(
                    f"{base_name} has {key} {here!r}, {name} has {there!r}; times of different machines are no "
                    "comparison of programs (--across-machines compares them all the same)"
                )
        before = {timing.case: timing.end_to_end for timing in base.timings}
        common = [timing for timing in record.timings if timing.case in before]
        if not common:
            raise ConfigurationError(f"{base_name} and {name} have no case in common; give both the same options")
        for timing in common:
            rows.append(Row(timing.case, name, base_name, compare_apart(before[timing.case], timing.end_to_end)))
    return rows


def contest_rows(contests: Sequence[Contest]) -> list[Row]:
    """Ours against every peer, from rounds in turns."""
    return [
        Row(contest.case, OURS, name, compare_paired(seconds, contest.seconds[OURS]))
        for contest in contests
        for name, seconds in contest.seconds.items()
        if name != OURS
    ]


def cells(row: Row) -> list[str]:
    """As text; a ratio that must not be quoted is not."""
    found, title = row.comparison, str(row.case) if row.subject == OURS else f"{row.subject}: {row.case}"
    if found.refusal:
        return [title, row.other, "—", found.refusal, f"{found.spread:.1%}"]
    interval = f"{found.low:.3f} … {found.high:.3f}"
    return [title, row.other, f"{found.ratio:.3f}", interval, f"{found.spread:.1%}"]


def as_text(rows: Sequence[Row]) -> str:
    """A table."""
    return table(HEADINGS, [cells(row) for row in rows], right=(2, 4))
