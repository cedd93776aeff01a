"""Graph passes: small rewrites, each in its own file, run in a declared order with declared numbers of rewrites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from align_runtime.errors import BuildError


class GraphPass(Protocol):
    """A rewrite that keeps what the graph computes. Changes `model` in place, does no I/O."""

    def __call__(self, model: ir.Model) -> int:
        """Rewrites what matches; returns how often. A second run returns 0."""


@dataclass(frozen=True)
class Step:
    """A pass and how many rewrites it must make on this model; None where the number says nothing."""

    graph_pass: GraphPass
    expected: int | None


def run_steps(model: ir.Model, steps: Sequence[Step]) -> dict[str, int]:
    """Runs `steps` in order; returns the number of rewrites by the pass's class name.

    Raises:
        BuildError: a pass made another number of rewrites than declared: the traced graph is not what it was written
            for, so nothing that follows can be relied on.
    """
    counts: dict[str, int] = {}
    for step in steps:
        name = type(step.graph_pass).__name__
        counts[name] = step.graph_pass(model)
        if step.expected is not None and counts[name] != step.expected:
            raise BuildError(
                f"the pass {name} made {counts[name]} rewrites where this model needs {step.expected}; the installed "
                "torch or onnxscript writes another graph than the one the pass knows (see constraints.txt)"
            )
    return counts
