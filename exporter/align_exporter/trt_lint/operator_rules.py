"""Which operators TensorRT's ONNX parser supports, and which of their operands must be constants.

Source: onnx-tensorrt, docs/operators.md of TensorRT 10.15: opsets 9 to 24 (NVIDIA's opset guide for TensorRT 11 goes to
25, whose Swish ONNX Runtime does not run); "`axes` must be an initializer" for reductions; "UINT8 is only supported as
network input or output tensor types". The list holds operators that compute on tensors. Control flow, sequences, random
numbers, signal processing and recurrent cells do not occur in a tower and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from align_exporter.trt_lint.finding import Finding, label, operand

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
# Quantized operators of other runtimes, which TensorRT replaces by Q/DQ.
QUANTIZED_OPERATORS = frozenset("ConvInteger DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul".split())
# TensorRT supports some of these, but the shape of their output depends on values: such an engine cannot be captured as
# a CUDA graph, and every tensor after them needs memory for its upper bound.
DATA_DEPENDENT = frozenset("Compress NonMaxSuppression NonZero Unique".split())

REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
# Operator → index of its axes.
AXES_OPERANDS = {f"Reduce{name}": 1 for name in REDUCTIONS} | {"Squeeze": 1, "Unsqueeze": 1}


def supported_opset(model: ir.Model) -> Iterator[Finding]:
    """The opset of the default ONNX domain is one that the parser reads."""
    version = model.opset_imports.get("", 0)
    if version not in OPSETS:
        problem = (
            f"opset {version}; the parser reads {OPSETS[0]} to {OPSETS[-1]}, so export with --opset {OPSETS[-1]} or "
            "lower"
        )
        yield Finding("opset", model.graph.name or "graph", problem)


def supported_operator(model: ir.Model) -> Iterator[Finding]:
    """The parser supports every operator."""
    for node in model.graph:
        if node.domain not in DEFAULT_DOMAINS:
            problem = f"{node.domain}::{node.op_type} is not an ONNX operator; use operators of the default domain"
        elif node.op_type in QUANTIZED_OPERATORS:
            problem = (
                f"{node.op_type} is not supported; use a float operator between DequantizeLinear and QuantizeLinear"
            )
        elif node.op_type not in SUPPORTED | DATA_DEPENDENT:
            problem = f"{node.op_type} is not in the parser's list; use operators that are"
        else:
            continue
        yield Finding("operator", label(node), problem)


def value_independent_shapes(model: ir.Model) -> Iterator[Finding]:
    """No shape depends on values."""
    for node in model.graph:
        if node.op_type in DATA_DEPENDENT:
            problem = f"the output shape of {node.op_type} depends on values; use the graph of padded texts instead"
            yield Finding("data-dependent shape", label(node), problem)


def constant_axes(model: ir.Model) -> Iterator[Finding]:
    """Axes are initializers."""
    for node in model.graph:
        index = AXES_OPERANDS.get(node.op_type)
        axes = None if index is None else operand(node, index)
        if axes is not None and not axes.is_initializer():
            problem = f"the axes {axes.name!r} are computed; make them an initializer"
            yield Finding("constant axes", label(node), problem)


def uint8_inputs(model: ir.Model) -> Iterator[Finding]:
    """Only an input of the graph is UINT8, and only a Cast reads it."""
    for value in model.graph.inputs:
        if value.dtype != ir.DataType.UINT8:
            continue
        for use in value.uses():
            if use.node.op_type != "Cast":
                problem = f"{use.node.op_type} reads the UINT8 input {value.name!r}; cast the input to a float first"
                yield Finding("UINT8", label(use.node), problem)
    for node in model.graph:
        if node.op_type != "QuantizeLinear" and any(value.dtype == ir.DataType.UINT8 for value in node.outputs):
            problem = f"{node.op_type} computes UINT8, which only an input of the graph may be; use another type"
            yield Finding("UINT8", label(node), problem)


RULES = (supported_opset, supported_operator, value_independent_shapes, constant_axes, uint8_inputs)
