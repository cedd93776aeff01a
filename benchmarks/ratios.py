"""How two contestants compare that took turns."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def speedup(before: Sequence[float], after: Sequence[float]) -> float:
    """How many times as fast `after` is, both in seconds per round: the median over pairs of rounds.

    The order within a round is reversed from one to the next, so two rounds together are fair to both; the last of an
    odd number is left out.
    """
    pairs = range(0, len(before) - 1, 2)
    return median(sum(before[index : index + 2]) / sum(after[index : index + 2]) for index in pairs)
