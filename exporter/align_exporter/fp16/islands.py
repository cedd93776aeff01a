"""What stays FP32 in an FP16 graph, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Island:
    """Operators side by side that were kept in FP32 because of their values, or because it was asked for.

    Attributes:
        nodes: their names, in the order of the graph.
        reasons: what was found, one sentence each, e.g. ``"vision_model…/Conv reaches 1.2e+05"``.
    """

    nodes: tuple[str, ...]
    reasons: tuple[str, ...]
