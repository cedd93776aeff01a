"""Traced towers are kept for the run: tracing is nine tenths of the time of exporting a small model.

What is kept is the graph as `align_exporter.graph.trace.trace` returned it, under a hash of everything that decides
about it. Exports in processes of their own (tests/exporter/test_export.py) trace anew and have to give the same bytes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import onnx
import onnx_ir as ir
from torch import nn

from align_exporter.graph.specs import GraphContract
from align_exporter.graph.trace import trace


class TraceCache:
    """A stand-in for `trace` that keeps its results in `folder`, which processes may share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, tower: nn.Module, contract: GraphContract, max_sequence: int, opset: int) -> ir.Model:
        file = self.folder / f"{_digest(tower, contract, max_sequence, opset)}.onnx"
        if not file.exists():
            model = trace(tower, contract, max_sequence, opset)
            partial = file.with_suffix(f".{os.getpid()}")
            partial.write_bytes(ir.to_proto(model).SerializeToString())
            partial.rename(file)
        return ir.from_proto(onnx.load(file))


def _digest(tower: nn.Module, contract: GraphContract, max_sequence: int, opset: int) -> str:
    configs = [module.config for module in tower.modules() if hasattr(module, "config")]
    digest = hashlib.sha256(f"{tower} {configs} {contract} {max_sequence} {opset}".encode())
    for name, tensor in sorted(tower.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
