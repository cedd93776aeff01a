"""A linter for graphs that TensorRT is to build: what its ONNX parser refuses, and what it builds slowly or wrongly.

The rules come from NVIDIA's documentation and need no TensorRT; each names its source. A graph without findings breaks
no rule that is written here, which does not prove that TensorRT builds it.

The linter imports nothing from the code that places Q/DQ: a shared helper would hide a shared mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import onnx_ir as ir

from align_exporter.trt_lint import operator_rules, placement_rules, type_rules
from align_exporter.trt_lint.finding import Finding
from align_runtime.errors import BuildError

Rule = Callable[[ir.Model], Iterator[Finding]]
RULES: tuple[Rule, ...] = (*operator_rules.RULES, *type_rules.RULES, *placement_rules.RULES)
MESSAGE_LIMIT = 450  # characters, which leaves room for the count of the findings that are not shown


def findings(model: ir.Model) -> list[Finding]:
    """Returns what all rules find in `model`, whose values must have types and shapes."""
    return [finding for rule in RULES for finding in rule(model)]


def check_tensorrt(file: Path) -> None:
    """Raises BuildError, with the first findings, if the graph in `file` breaks a rule."""
    found = findings(ir.load(file))
    if not found:
        return
    message = f"{file.name} breaks {len(found)} TensorRT rule{'s' if len(found) > 1 else ''}: {found[0]}"
    shown = 1
    while shown < len(found) and len(message) + len(str(found[shown])) + 2 <= MESSAGE_LIMIT:
        message += f"; {found[shown]}"
        shown += 1
    raise BuildError(message if shown == len(found) else f"{message}; and {len(found) - shown} more")
