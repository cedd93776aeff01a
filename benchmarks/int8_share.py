"""The share of products that a quantised graph computes in INT8, counted alike in ONNX files and in OpenVINO's.

`content_of` (align_exporter.graph) counts what this project writes and refuses the rest; here are the forms of other
tools too. A product is in INT8 where an integer operator computes it, or where both of its operands are dequantised
8-bit integers (DequantizeLinear; in OpenVINO FakeQuantize of 256 levels at most, or a constant of 8 bits that is
scaled), however often they are reshaped in between. Shapes are those of one run, for a text graph's depend on its text.
Like `content_of` this says what the file demands; what an engine fuses is not in the file.
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
FLOAT_PRODUCTS = ("Conv", "MatMul", "Gemm")
# The place of the second operand among the inputs.
INTEGER_PRODUCTS = {"MatMulInteger": 1, "ConvInteger": 1, "QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3}
OTHER_PRODUCTS = {"Attention", "ConvTranspose", "DeformConv", "Einsum", "GRU", "LSTM", "RNN"}
LAYOUT = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Gather", "Slice", "Identity", "Expand"}
BYTES = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
OPENVINO_PRODUCTS = ("Convolution", "GroupConvolution", "MatMul")
OPENVINO_OTHERS = {"ConvolutionBackpropData", "GroupConvolutionBackpropData", "Einsum", "LSTMSequence", "GRUSequence"}
OPENVINO_LAYOUT = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Gather", "Slice", "Broadcast", "VariadicSplit"}


def int8_share(file: Path, inputs: Inputs) -> float:
    """The share of multiplications in INT8, from 0 to 1, that the graph in `file` (.onnx or .xml) needs on `inputs`.

    Raises:
        ValueError: an operator that multiplies in a way that is not counted, or no product at all.
    """
    macs = _openvino_macs(file, inputs) if file.suffix == ".xml" else _onnx_macs(file, inputs)
    return macs["int8"] / macs.total()


def _onnx_macs(file: Path, inputs: Inputs) -> Counter[str]:
    model = onnx.load(file)
    nodes = [node for node in model.graph.node if node.op_type in (*FLOAT_PRODUCTS, *INTEGER_PRODUCTS)]
    others = sorted({node.op_type for node in model.graph.node} & OTHER_PRODUCTS)
    if others:
        raise ValueError(f"{file.name} holds {', '.join(others)}, whose products are not counted")
    if not nodes:
        raise ValueError(f"{file.name} holds no product")
    producers = {name: node for node in model.graph.node for name in node.output}
    integers = _integer_values(model.graph)
    seconds = [node.input[INTEGER_PRODUCTS.get(node.op_type, 1)] for node in nodes]
    shapes = _run_onnx(model, [*(node.output[0] for node in nodes), *seconds], inputs)
    macs: Counter[str] = Counter()
    for node, second in zip(nodes, seconds, strict=True):
        integer = node.op_type in INTEGER_PRODUCTS or all(
            _is_dequantized(name, producers, integers) for name in node.input[:2]
        )
        macs["int8" if integer else "float"] += prod(shapes[node.output[0]]) * _terms(node, shapes[second])
    return macs


def _integer_values(graph: onnx.GraphProto) -> set[str]:
    """Names of the values that are known to be 8-bit integers."""
    names = {tensor.name for tensor in graph.initializer if tensor.data_type in BYTES}
    names |= {value.name for value in graph.input if value.type.tensor_type.elem_type in BYTES}  # pixels
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            # Without a zero point, the numbers are uint8 unless an attribute says otherwise.
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
    """How many products are added up in an element of the output."""
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
    if types & OPENVINO_OTHERS:
        raise ValueError(f"{file.name} holds {', '.join(sorted(types & OPENVINO_OTHERS))}, which are not counted")
    nodes = [node for node in model.get_ops() if node.get_type_name() in OPENVINO_PRODUCTS]
    if not nodes:
        raise ValueError(f"{file.name} holds no product")
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
    # A constant is widened, moved by its zero point where it has one, and scaled.
    for operator in ("Multiply", "Subtract", "Convert"):
        if node.get_type_name() == operator:
            node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and node.get_element_type().get_type_name() in ("i8", "u8")
