"""Which operators TensorRT's ONNX parser knows.

Source: onnx-tensorrt, docs/operators.md of TensorRT 10.15: opsets 9 to 24 (NVIDIA's opset guide for 11 goes to 25,
whose Swish ONNX Runtime does not run). Listed are those that compute on tensors and give shapes that follow from
shapes; control flow, sequences, random numbers, signal processing and recurrent cells have no place in a tower.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from align_exporter.trt_lint.finding import Finding, label

DEFAULT_DOMAINS = ("", "ai.onnx")
OPSETS = range(9, 25)

SUPPORTED = frozenset(
    """
    Abs Add And ArgMax ArgMin Attention AveragePool BatchNormalization Cast CastLike Ceil Celu Clip Concat Constant
    ConstantOfShape Conv ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf Exp Expand
    Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater
    GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization IsInf IsNaN
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul Max MaxPool Mean Min
    Mish Mod Mul Neg Not OneHot Or PRelu Pad Pow QuantizeLinear RMSNormalization Range Reciprocal ReduceL1 ReduceL2
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape
    Resize RotaryEmbedding Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Size Slice Softmax Softplus
    Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu
    Unsqueeze Where Xor
    """.split()
)
# Those that quantised graphs for other engines hold.
FOREIGN_QUANTIZATION = frozenset("ConvInteger DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul".split())
# TensorRT knows some of these, but the shapes that they give depend on values: no CUDA graph, and an upper bound of
# memory for every tensor behind them.
DATA_DEPENDENT = frozenset("Compress NonMaxSuppression NonZero Unique".split())


def opset(model: ir.Model) -> Iterator[Finding]:
    """The default ONNX domain is of a version that the parser knows."""
    version = model.opset_imports.get("", 0)
    if version not in OPSETS:
        problem = f"the opset is {version}; {OPSETS[0]} to {OPSETS[-1]} are read, export with --opset {OPSETS[-1]}"
        yield Finding("opset", model.graph.name or "graph", problem)


def operator(model: ir.Model) -> Iterator[Finding]:
    """Every operator is one that the parser supports."""
    for node in model.graph:
        if node.domain not in DEFAULT_DOMAINS:
            problem = (
                f"{node.domain}::{node.op_type} is no ONNX operator; write it with operators of the default domain"
            )
        elif node.op_type in FOREIGN_QUANTIZATION:
            problem = (
                f"{node.op_type} is not supported; write a float operator between DequantizeLinear and QuantizeLinear"
            )
        elif node.op_type not in SUPPORTED | DATA_DEPENDENT:
            problem = f"{node.op_type} is not in the parser's list; write it with operators that are"
        else:
            continue
        yield Finding("operator", label(node), problem)


def data_dependent_shape(model: ir.Model) -> Iterator[Finding]:
    """No shape depends on values."""
    for node in model.graph:
        if node.op_type in DATA_DEPENDENT:
            problem = f"the shape that {node.op_type} gives depends on values; take the graph without it (padded text)"
            yield Finding("data-dependent shape", label(node), problem)


RULES = (opset, operator, data_dependent_shape)
