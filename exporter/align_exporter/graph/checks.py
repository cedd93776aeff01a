"""Checks of a graph: operators that must or must not be left, valid ONNX, and the graph contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from align_exporter.graph.specs import GraphContract
from align_reference.config import AlignConfig
from align_reference.vision import block_shapes
from align_runtime.errors import BuildError
from align_runtime.graph_entry import TensorSpec

WITH_TANH = ("tanh", "gelu_new", "gelu_pytorch_tanh")  # activations that use Tanh, the last one below opset 20


def expected_operators(contract: GraphContract, config: AlignConfig, target: str) -> dict[str, range]:
    """Numbers of operators that follow from the configuration, whether or not optional passes found a match.

    A 0 shows that the exporter folded all of them: batch norm, padding, BERT's pooler, pooling written as a reduction.
    """
    if contract.tower == "text":
        # Six projections and two products of activations per layer; the projection to `dim` is a Gemm. The tracer
        # merges those projections to query, key and value that are equal.
        layers = config.text.num_hidden_layers
        counts = {"LayerNormalization": 2 * layers + 1, "Gemm": 1, "Softmax": layers}
        if config.text.hidden_act not in WITH_TANH:
            counts["Tanh"] = 0  # of the pooler
        # NonZero gives shapes that depend on values (positions of the tokens, length of the longest text). Only the
        # graph for the CPU may have them.
        counts["NonZero"] = 2 if target == "cpu" else 0
        return _exactly(counts) | {"MatMul": range(6 * layers, 8 * layers + 1)}
    # The stem; per block the depthwise convolution, two of squeeze-excite, the projection, and mostly an expansion.
    convolutions = 1 + sum(4 + (shape.expand_ratio != 1) for shape in block_shapes(config.vision))
    return _exactly({"Conv": convolutions, "BatchNormalization": 0, "Pad": 0, "ReduceMean": 0, "ReduceMax": 0})


def _exactly(counts: Mapping[str, int]) -> dict[str, range]:
    return {operator: range(count, count + 1) for operator, count in counts.items()}


def check_operators(model: ir.Model, contract: GraphContract, config: AlignConfig, target: str = "any") -> None:
    """Compares the operators of `model` with `expected_operators`.

    Raises:
        BuildError: there are more or fewer of an operator.
    """
    found = Counter(node.op_type for node in model.graph)
    for operator, counts in expected_operators(contract, config, target).items():
        if found[operator] not in counts:
            wanted = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else counts[0]
            raise BuildError(
                f"the {contract.tower} graph has {found[operator]} {operator} nodes, expected {wanted}. See the graph: "
                "align-export --dump-graph final FILE. The installed torch or onnxscript may fold less than the tested "
                "versions (constraints.txt)"
            )


def check_file(file: Path, contract: GraphContract, opset: int, data: str | None) -> None:
    """Runs ONNX's checker on the written graph and compares inputs, outputs and opset with the contract.

    The full check infers all types and shapes strictly: operands that must have one type do, as in a strongly typed
    TensorRT network, and the types stored in the file agree with the inferred ones.

    Args:
        data: name of the external data file, in the folder of the graph, that may hold weights; None: no file may.

    Raises:
        BuildError: the file is not valid ONNX, mixes types, has weights elsewhere than in `data`, or has other inputs,
            outputs or another opset than expected.
    """
    try:
        onnx.checker.check_model(str(file), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BuildError(f"{file.name} is not a valid ONNX graph: {str(error).splitlines()[0][:300]}") from None
    model = onnx.load(str(file), load_external_data=False)
    found = {
        "inputs": tuple(_spec(value) for value in model.graph.input),
        "outputs": tuple(_spec(value) for value in model.graph.output),
        "opset": next(entry.version for entry in model.opset_import if entry.domain == ""),
    }
    wanted = {"inputs": contract.inputs, "outputs": (contract.output,), "opset": opset}
    places = (entry for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location")
    elsewhere = {entry.value for entry in places} - {data}
    if elsewhere:
        raise BuildError(f"{file.name} has weights in {', '.join(sorted(elsewhere))}, expected {data or 'no file'}")
    for side, value in wanted.items():
        if found[side] != value:
            raise BuildError(f"{file.name}: {side} is {found[side]}, expected {value}")


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorSpec(value.name, dtype, tuple(size.dim_param or size.dim_value for size in tensor.shape.dim))
