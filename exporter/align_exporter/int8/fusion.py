"""Checks that ONNX Runtime computes the quantized operators of a graph with INT8 kernels.

A quantized operator is a float operator between DequantizeLinear and QuantizeLinear, or a MatMulInteger with its
scales. The first kind computes in INT8 only where ONNX Runtime matches the group and fuses it to one kernel. If a
tensor has no scale, or another version matches other patterns, the group runs in float with conversions: correct, but
slower than FP32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxruntime

from align_runtime.errors import BuildError

# Operator → the INT8 kernels that it is fused to.
KERNELS = {
    "Conv": ("QLinearConv",),
    "Sigmoid": ("QLinearSigmoid",),
    "Mul": ("QLinearMul",),
    "Add": ("QLinearAdd",),
    "GlobalAveragePool": ("QLinearGlobalAveragePool",),
    "MatMul": ("MatMulInteger",),  # not fused further: ONNX Runtime supports one scale per tensor, not per row
}


def check_fused(file: Path, quantized: Mapping[str, int]) -> None:
    """Optimizes the graph in `file` with ONNX Runtime and counts its INT8 kernels.

    Args:
        file: the graph; a temporary file is written beside it.
        quantized: number of quantized operators, by operator, with the keys of `KERNELS`.

    Raises:
        BuildError: the number of kernels differs.
    """
    found = count_kernels(file)
    for operator, count in quantized.items():
        fused = sum(found[kernel] for kernel in KERNELS[operator])
        if fused != count:
            raise BuildError(
                f"{file.name}: ONNX Runtime {onnxruntime.__version__} computes {fused} of {count} quantized {operator} "
                "in INT8; install the tested version (constraints.txt)"
            )


def count_kernels(file: Path) -> Counter[str]:
    """Counts the operators of the graph in `file` after ONNX Runtime's optimizations, except those of memory layout."""
    optimized = file.with_name(f".{file.stem}.optimized.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(optimized)
    try:
        onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(optimized, load_external_data=False).graph.node
    finally:
        optimized.unlink(missing_ok=True)
    return Counter(node.op_type for node in nodes)
