"""The result of a search: as JSON, as tables, and as the entry of the file that `align_runtime.load` reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align_bench.tune.search import BELOW, CHOSEN, DEFAULT, FASTER, LEFT_OUT, NO_TIME, SLOWER, UNAVAILABLE, Outcome
from align_runtime.console import table
from align_runtime.machine_key import MachineKey
from align_runtime.tuning import FILE_NAME, MOST, TunedTower, TuningEntry

SCHEMA = 1
ORDER = (CHOSEN, FASTER, DEFAULT, SLOWER, LEFT_OUT, BELOW, NO_TIME, UNAVAILABLE)
UNKNOWN = "—"


@dataclass(frozen=True)
class TunedResult:
    """What was found for one tower.

    Attributes:
        chosen: of `outcomes`; the default's where nothing was shown to be faster.
        floor: smallest cosine that was allowed.
        inputs: what the cosines are taken on.
        seconds: that the search took.
    """

    chosen: Outcome
    outcomes: Sequence[Outcome]
    floor: float
    inputs: str
    seconds: float

    def tuned_tower(self, date: str) -> TunedTower:
        """What is written into the file."""
        chosen, comparison = self.chosen, self.chosen.comparison
        measured = (1.0, 1.0, 1.0) if comparison is None else (comparison.ratio, comparison.low, comparison.high)
        ratio, low, high = (min(max(value, 0.0), MOST) for value in measured)
        return TunedTower(
            settings=chosen.settings,
            floor=self.floor,
            cosine=chosen.cosine or 0.0,
            inputs=self.inputs,
            milliseconds=1e3 * (chosen.seconds or 0.0),
            speedup=ratio,
            low=low,
            high=high,
            date=date,
        )


@dataclass(frozen=True)
class TuneReport:
    """The result of one ``align-bench tune``.

    Attributes:
        load_average: before and after; None where the system does not count it.
        file: what `entry` was written to.
    """

    entry: TuningEntry
    towers: Mapping[str, TunedResult]
    load_average: tuple[float | None, float | None]
    file: Path

    def to_json(self) -> dict[str, Any]:
        """Everything, with all candidates in the order in which they were tried."""
        return {
            "schema": SCHEMA,
            "kind": "tune",
            "machine": self.entry.machine.to_json(),
            "load_average": list(self.load_average),
            "bundle": {"name": self.entry.bundle, "manifest_sha256": self.entry.manifest_sha256},
            "target": self.entry.target,
            "file": str(self.file),
            "towers": {
                name: {
                    "chosen": result.chosen.settings.to_json(),
                    "floor": result.floor,
                    "inputs": result.inputs,
                    "seconds": round(result.seconds, 3),
                    "candidates": [_outcome_json(outcome) for outcome in result.outcomes],
                }
                for name, result in self.towers.items()
            },
        }

    def lines(self) -> list[str]:
        """Tables for a reader, the fastest first, and what was chosen."""
        machine, lines = self.entry.machine, list[str]()
        for name, result in self.towers.items():
            lines += [f"{name}, {self.entry.target}, {result.seconds:.0f} s; cosines with FP32 on: {result.inputs}", ""]
            found = [outcome for outcome in sorted(result.outcomes, key=_rank) if outcome.verdict != UNAVAILABLE]
            lines += table(["settings", "ms/input", "× default", "min cosine", ""], map(_row, found), right=(1, 2, 3))
            lines += ["", *_unavailable(result.outcomes)]
        lines.append(f"on {machine.processor}, {machine.cores} cores{f', {machine.gpu}' if machine.gpu else ''}")
        busy = max((load for load in self.load_average if load is not None), default=0.0)
        if busy > machine.cores / 4 + 1:  # one core is this process's own
            lines.append(f"load average {busy:.1f}: the machine was busy, measure again when it is idle")
        for name, result in self.towers.items():
            lines.append(f"{name}: {_verdict(result)}")
        target = self.entry.target if self.file.name == FILE_NAME else f"{self.file}:{self.entry.target}"
        return [*lines, f"written to {self.file}; load with tuned={target!r}"]


def _unavailable(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each reason, with what it holds for."""
    reasons: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.verdict == UNAVAILABLE:
            reasons.setdefault(outcome.note, []).append(f"{outcome.settings.precision} on {outcome.settings.device}")
    lines = [f"unavailable: {', '.join(dict.fromkeys(names))}: {reason}" for reason, names in reasons.items()]
    return [*lines, ""] if lines else []


def _verdict(result: TunedResult) -> str:
    chosen = result.chosen
    if chosen.verdict == DEFAULT:
        said = f"{chosen.settings}, the default: nothing was shown to be faster"
    else:
        said = f"{chosen.settings}, {chosen.ratio or 1:.2f} × the default {result.outcomes[0].settings}"
    missed = sum(outcome.verdict == NO_TIME for outcome in result.outcomes)
    return f"{said}; no time for {missed} settings: more with --seconds-budget" if missed else said


def _rank(outcome: Outcome) -> tuple[int, float]:
    return ORDER.index(outcome.verdict), -(outcome.ratio or 0)


def _row(outcome: Outcome) -> list[str]:
    comparison = outcome.comparison
    ratio = UNKNOWN if outcome.ratio is None else f"{outcome.ratio:.2f}"
    if comparison is not None and math.isfinite(comparison.high):
        ratio += f" ({comparison.low:.2f} to {comparison.high:.2f})"
    return [
        str(outcome.settings),
        UNKNOWN if outcome.seconds is None else f"{1e3 * outcome.seconds:.3g}",
        ratio,
        UNKNOWN if outcome.cosine is None else f"{outcome.cosine:.5f}",
        outcome.verdict + (f": {outcome.note}" if outcome.note else ""),
    ]


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    comparison = outcome.comparison
    return {
        **outcome.settings.to_json(),
        "verdict": outcome.verdict,
        "note": outcome.note or None,
        "milliseconds": None if outcome.seconds is None else 1e3 * outcome.seconds,
        "speedup": outcome.ratio,
        "low": _finite(None if comparison is None else comparison.low),
        "high": _finite(None if comparison is None else comparison.high),
        "cosine": _finite(outcome.cosine),
        "rounds": outcome.rounds,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def entry_of(
    machine: MachineKey, target: str, bundle: str, sha256: str, towers: Mapping[str, TunedResult], date: str
) -> TuningEntry:
    """The entry of the file."""
    tuned = {name: result.tuned_tower(date) for name, result in towers.items()}
    return TuningEntry(machine, target, bundle, sha256, tuned)
