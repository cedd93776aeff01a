"""The share of MACs that a quantized graph computes in INT8, counted by the same rules in ONNX and in OpenVINO files.

The exporter counts only the forms that it writes; here the forms of other tools are counted too. A multiplication is in
INT8 if an integer operator computes it, or if both operands are dequantized 8-bit integers (DequantizeLinear; in
OpenVINO a FakeQuantize with at most 256 levels, or a scaled 8-bit constant), also with changes of shape in between.
Shapes come from one run, because those of a text graph depend on the text. This counts what the file asks for; what an
engine fuses is not in the file.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
from numpy.typing import NDArray

Inputs = Mapping[str, NDArray[Any]]
FLOAT_OPERATORS = ("Conv", "MatMul", "Gemm")
# Integer operators, with the index of the second operand among the inputs.
INTEGER_OPERATORS = {"MatMulInteger": 1, "ConvInteger": 1, "QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3}
UNCOUNTED_OPERATORS = {"Attention", "ConvTranspose", "DeformConv", "Einsum", "GRU", "LSTM", "RNN"}
LAYOUT = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Gather", "Slice", "Identity", "Expand"}
BYTES = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
OPENVINO_OPERATORS = ("Convolution", "GroupConvolution", "MatMul")
OPENVINO_UNCOUNTED = {
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
    "Einsum",
    "LSTMSequence",
    "GRUSequence",
}
OPENVINO_LAYOUT = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Gather", "Slice", "Broadcast", "VariadicSplit"}


def int8_share(file: Path, inputs: Inputs) -> float:
    """The share of MACs in INT8, from 0 to 1, of the graph in `file` (.onnx or .xml) on `inputs`.

    Raises:
        ValueError: the graph has an operator whose MACs are not counted, or no MACs at all.
    """
    macs = _openvino_macs(file, inputs) if file.suffix == ".xml" else _onnx_macs(file, inputs)
    return macs["int8"] / macs.total()


def _onnx_macs(file: Path, inputs: Inputs) -> Counter[str]:
    model = onnx.load(file)
    nodes = [node for node in model.graph.node if node.op_type in (*FLOAT_OPERATORS, *INTEGER_OPERATORS)]
    others = sorted({node.op_type for node in model.graph.node} & UNCOUNTED_OPERATORS)
    if others:
        raise ValueError(f"{file.name} has {', '.join(others)}, whose MACs are not counted")
    if not nodes:
        raise ValueError(f"{file.name} has no MACs")
    producers = {name: node for node in model.graph.node for name in node.output}
    integers = _integer_values(model.graph)
    seconds = [node.input[INTEGER_OPERATORS.get(node.op_type, 1)] for node in nodes]
    shapes = _run_onnx(model, [*(node.output[0] for node in nodes), *seconds], inputs)
    macs: Counter[str] = Counter()
    for node, second in zip(nodes, seconds, strict=True):
        integer = node.op_type in INTEGER_OPERATORS or all(
            _is_dequantized(name, producers, integers) for name in node.input[:2]
        )
        macs["int8" if integer else "float"] += prod(shapes[node.output[0]]) * _terms(node, shapes[second])
    return macs


def _integer_values(graph: onnx.GraphProto) -> set[str]:
    """Names of the values that are 8-bit integers."""
    names = {tensor.name for tensor in graph.initializer if tensor.data_type in BYTES}
    names |= {value.name for value in graph.input if value.type.tensor_type.elem_type in BYTES}  # pixels
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            # Without a zero point, values are uint8 unless an attribute says otherwise.
            zero_point = node.input[2] if len(node.input) > 2 else ""
            chosen = next((entry.i for entry in node.attribute if entry.name == "output_dtype"), 0)
            dtype = chosen or (types.get(zero_point) if zero_point else onnx.TensorProto.UINT8)
            names |= set(node.output) if dtype in BYTES else set()
        elif node.op_type == "Constant":
            names |= {name for name in node.output if any(entry.t.data_type in BYTES for entry in node.attribute)}
        elif node.op_type in LAYOUT and node.input[0] in names:
            names |= set(node.output)
    return names


def _is_dequantized(name: str, producers: Mapping[str, onnx.NodeProto], integers: set[str]) -> bool:
    while name in producers and producers[name].op_type in LAYOUT:
        name = producers[name].input[0]
    return name in producers and producers[name].op_type == "DequantizeLinear" and producers[name].input[0] in integers


def _terms(node: onnx.NodeProto, second: Sequence[int]) -> int:
    """The number of MACs for one element of the output."""
    if "Conv" in node.op_type:
        return prod(second[1:])  # (out, in / group, height, width)
    if any(entry.name == "transB" and entry.i for entry in node.attribute):
        return second[-1]
    return second[-2] if len(second) > 1 else second[0]


def _run_onnx(model: onnx.ModelProto, names: Sequence[str], inputs: Inputs) -> dict[str, tuple[int, ...]]:
    """Shapes of the values `names` on `inputs`."""
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    wanted = list(dict.fromkeys(name for name in names if name not in constants))
    given = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in given)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(model.SerializeToString())
        file.flush()
        session = onnxruntime.InferenceSession(file.name, options, providers=["CPUExecutionProvider"])
        values = session.run(wanted, dict(inputs))
    return constants | {name: np.shape(value) for name, value in zip(wanted, values, strict=True)}


def _openvino_macs(file: Path, inputs: Inputs) -> Counter[str]:
    model = openvino.Core().read_model(str(file))
    types = {node.get_type_name() for node in model.get_ops()}
    if types & OPENVINO_UNCOUNTED:
        raise ValueError(f"{file.name} has {', '.join(sorted(types & OPENVINO_UNCOUNTED))}, whose MACs are not counted")
    nodes = [node for node in model.get_ops() if node.get_type_name() in OPENVINO_OPERATORS]
    if not nodes:
        raise ValueError(f"{file.name} has no MACs")
    integer = [all(_openvino_is_dequantized(node.input_value(index)) for index in (0, 1)) for node in nodes]
    shapes = _run_openvino(model, [value for node in nodes for value in (node.output(0), node.input_value(1))], inputs)
    macs: Counter[str] = Counter()
    for node, is_integer in zip(nodes, integer, strict=True):
        output, second = (shapes[_key(value)] for value in (node.output(0), node.input_value(1)))
        macs["int8" if is_integer else "float"] += prod(output) * _openvino_terms(node, second)
    return macs


def _key(value: openvino.Output) -> tuple[str, int]:
    return value.get_node().get_friendly_name(), value.get_index()


def _run_openvino(
    model: openvino.Model, values: Sequence[openvino.Output], inputs: Inputs
) -> dict[tuple[str, int], tuple[int, ...]]:
    """Shapes of `values` on `inputs`; adds outputs to `model`."""
    given = {_key(result.input_value(0)) for result in model.results}
    wanted = {_key(value): value for value in values if _key(value) not in given}
    model.add_outputs(list(wanted.values()))
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    request.infer(dict(inputs))
    keys = [_key(result.input_value(0)) for result in model.results]
    return {key: tuple(request.get_output_tensor(index).shape) for index, key in enumerate(keys)}


def _openvino_terms(node: openvino.Node, second: Sequence[int]) -> int:
    if node.get_type_name() == "GroupConvolution":
        return prod(second[2:])  # (group, out, in, height, width)
    if node.get_type_name() == "Convolution":
        return prod(second[1:])
    return second[-1] if node.get_attributes()["transpose_b"] else second[-2]


def _openvino_is_dequantized(value: openvino.Output) -> bool:
    node = value.get_node()
    while node.get_type_name() in OPENVINO_LAYOUT:
        node = node.input_value(0).get_node()
    if node.get_type_name() == "FakeQuantize":
        return node.get_attributes()["levels"] <= 256
    # A constant is converted, shifted by its zero point if it has one, and scaled.
    for operator in ("Multiply", "Subtract", "Convert"):
        if node.get_type_name() == operator:
            node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and node.get_element_type().get_type_name() in ("i8", "u8")
