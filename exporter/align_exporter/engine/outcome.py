"""What became of the engines of an export, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from align_runtime.console import table
from align_runtime.engines import EngineEntry
from align_runtime.precision import describe


@dataclass(frozen=True)
class EngineOutcome:
    """An engine that is in the bundle now, and why it was built; None if it was there already."""

    entry: EngineEntry
    reason: str | None


def engines_table(outcomes: Sequence[EngineOutcome]) -> str:
    """One line per engine."""
    rows = [
        [
            outcome.entry.file,
            f"{outcome.entry.bytes / 1e6:.1f} MB",
            describe(outcome.entry.products),
            f"{outcome.entry.parity.max_abs:.2e}",
            f"{outcome.entry.parity.min_cosine:.7f}",
            "up to date" if outcome.reason is None else f"built in {outcome.entry.seconds:.0f} s: {outcome.reason}",
        ]
        for outcome in outcomes
    ]
    return table(["engine", "size", "products in", "max abs", "min cosine", ""], rows, right=(1, 3, 4))


def engines_json(outcomes: Sequence[EngineOutcome]) -> list[dict[str, Any]]:
    """What is written beside each engine, and whether and why it was built."""
    return [
        outcome.entry.to_json() | {"built": outcome.reason is not None, "reason": outcome.reason}
        for outcome in outcomes
    ]
