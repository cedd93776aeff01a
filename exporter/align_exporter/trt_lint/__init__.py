"""A linter for graphs that TensorRT is to build: what its ONNX parser refuses, and what it builds slowly or wrongly.

No TensorRT is needed, and none proves a graph here: the rules are those of its documentation, written down per rule.
A graph without findings is one that nothing is known against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import onnx_ir as ir

from align_exporter.trt_lint import constants, floats, operators, placement, quantization
from align_exporter.trt_lint.finding import Finding
from align_runtime.errors import BuildError

Rule = Callable[[ir.Model], Iterator[Finding]]
RULES: tuple[Rule, ...] = (*operators.RULES, *constants.RULES, *floats.RULES, *quantization.RULES, *placement.RULES)
SHOWN = 20


def findings(model: ir.Model) -> list[Finding]:
    """All that the rules have against `model`, whose values have types and shapes."""
    return [finding for rule in RULES for finding in rule(model)]


def check_tensorrt(file: Path) -> None:
    """Raises BuildError, with the findings, unless the graph in `file` has none."""
    found = findings(ir.load(file))
    if found:
        shown = "; ".join(map(str, found[:SHOWN]))
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise BuildError(f"{file.name} breaks {len(found)} of TensorRT's rules: {shown}{more}")
