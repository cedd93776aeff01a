"""The proof that ONNX Runtime computes in INT8 what the graph says in INT8.

A quantised operator is a float operator between DequantizeLinear and QuantizeLinear, or a chain of five operators. It
computes in INT8 only where ONNX Runtime knows the group and replaces it by one kernel. One tensor without scales, or a
version that knows another pattern, and the graph runs in float with conversions: right, and slower than FP32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxruntime

from align_runtime.errors import BuildError

# The kernels that take the place of a group.
KERNELS = {
    "Conv": ("QLinearConv",),
    "Sigmoid": ("QLinearSigmoid",),
    "Mul": ("QLinearMul",),
    "Add": ("QLinearAdd",),
    "GlobalAveragePool": ("QLinearGlobalAveragePool",),
    "MatMul": ("MatMulInteger",),  # the group is left as it is: ONNX Runtime knows one scale a tensor, not one a row
}


def check_fused(file: Path, quantized: Mapping[str, int]) -> None:
    """Has ONNX Runtime load the graph in `file` and counts its INT8 kernels.

    Args:
        file: a new file beside it is written and removed.
        quantized: how many operators were quantised, by operator, as `KERNELS` names them.

    Raises:
        BuildError: there are not as many kernels as quantised operators.
    """
    found = kernels(file)
    for operator, count in quantized.items():
        fused = sum(found[kernel] for kernel in KERNELS[operator])
        if fused != count:
            raise BuildError(
                f"{file.name}: ONNX Runtime {onnxruntime.__version__} computes {fused} of {count} quantised {operator} "
                "in INT8; the installed version knows other patterns than the pinned one (see constraints.txt)"
            )


def kernels(file: Path) -> Counter[str]:
    """Operators of the graph that ONNX Runtime makes of the one in `file`, without those for one machine's layout."""
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
