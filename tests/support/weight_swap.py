"""Graphs of one architecture with many sets of weights, traced once: torch's tracing never looks at weights.

What depends on them is what is folded and merged afterwards: zero biases and neutral factors go, equal constants become
one, and so do operators that then compute the same. That runs anew for every set of weights, as in
`align_exporter.graph.trace.trace`; it takes a tenth of the time.
"""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import patch

import onnx_ir as ir
import torch
from torch import nn

from align_exporter.graph.specs import GraphContract
from align_exporter.graph.trace import quiet, trace

OPTIMIZE = torch.onnx.ONNXProgram.optimize


class WeightSwap:
    """A stand-in for `trace` that traces each kind of tower once."""

    def __init__(self) -> None:
        self._traced: dict[str, ir.Model] = {}

    def __call__(self, tower: nn.Module, contract: GraphContract, max_sequence: int, opset: int) -> ir.Model:
        key = f"{tower} {contract} {max_sequence} {opset}"
        if key not in self._traced:
            with patch.object(torch.onnx.ONNXProgram, "optimize", lambda _: None):
                self._traced[key] = trace(tower, contract, max_sequence, opset)
        program = SimpleNamespace(model=self._traced[key].clone())
        for name, tensor in tower.state_dict(keep_vars=False).items():
            if name in program.model.graph.initializers:
                values = ir.tensor(tensor.detach().cpu().contiguous().numpy().copy(), name=name)
                program.model.graph.initializers[name].const_value = values
        with quiet():
            OPTIMIZE(program)  # type: ignore[arg-type]  # it reads and sets `model` alone
        return program.model
