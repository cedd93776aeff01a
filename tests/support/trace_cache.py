"""Traced towers are kept for the run: tracing is nine tenths of the time of exporting a small model.

torch traces without looking at weights. What depends on them is what is folded and merged afterwards: zero biases and
neutral factors go, equal constants become one, and so do operators that then compute the same. So a tower is traced
once for all weights, and what follows is done once for each set of weights, with those in place.

Exports in processes of their own (tests/exporter/test_export.py) trace anew and have to give the same bytes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import onnx
import onnx_ir as ir
import torch
from torch import nn

from align_exporter.graph.specs import GraphContract
from align_exporter.graph.trace import quiet, trace

OPTIMIZE = torch.onnx.ONNXProgram.optimize


class TraceCache:
    """A stand-in for `trace` that keeps its results in `folder`, which processes may share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, tower: nn.Module, contract: GraphContract, max_sequence: int, opset: int) -> ir.Model:
        architecture, weights = _digests(tower, contract, max_sequence, opset)
        traced, finished = (self.folder / f"{name}.onnx" for name in (architecture, f"{architecture}-{weights}"))
        if not finished.exists():
            if not traced.exists():
                with patch.object(torch.onnx.ONNXProgram, "optimize", lambda _: None):
                    _write(trace(tower, contract, max_sequence, opset), traced)
            _write(_optimized(_read(traced), tower), finished)
        return _read(finished)


def _optimized(model: ir.Model, tower: nn.Module) -> ir.Model:
    """`model`, traced without optimization, with the weights of `tower` and then torch's optimization."""
    for name, tensor in tower.state_dict().items():
        if name in model.graph.initializers:
            values = ir.tensor(tensor.detach().cpu().contiguous().numpy().copy(), name=name)
            model.graph.initializers[name].const_value = values
    program = SimpleNamespace(model=model)
    with quiet():
        OPTIMIZE(program)  # type: ignore[arg-type]  # it reads and sets `model` alone
    return program.model


def _read(file: Path) -> ir.Model:
    return ir.from_proto(onnx.load(file))


def _write(model: ir.Model, file: Path) -> None:
    partial = file.with_suffix(f".{os.getpid()}")
    partial.write_bytes(ir.to_proto(model).SerializeToString())
    partial.rename(file)


def _digests(tower: nn.Module, contract: GraphContract, max_sequence: int, opset: int) -> tuple[str, str]:
    """Of everything that decides about tracing, and of the weights."""
    configs = [module.config for module in tower.modules() if hasattr(module, "config")]
    state = sorted(tower.state_dict().items())
    shapes = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in state]
    weights = hashlib.sha256()
    for _, tensor in state:
        weights.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    architecture = hashlib.sha256(f"{tower} {configs} {contract} {max_sequence} {opset} {shapes}".encode())
    return architecture.hexdigest(), weights.hexdigest()
