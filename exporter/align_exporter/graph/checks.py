"""Checks on a graph before it is written: valid ONNX, the contract, and the form that the tower has to have."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import onnx_ir as ir

from align_exporter.graph.contract import GraphContract
from align_reference.config import AlignConfig
from align_reference.vision import block_shapes
from align_runtime.errors import BuildError
from align_runtime.graph_entry import TensorSpec

WITH_TANH = ("tanh", "gelu_new", "gelu_pytorch_tanh")  # activations that put Tanh into a graph, the last by opset


def expected_operators(contract: GraphContract, config: AlignConfig, target: str) -> dict[str, int]:
    """Operators whose number follows from the configuration: the proof that folding left nothing over."""
    if contract.tower == "text":
        # Six projections per layer; the last one to `dim` is a Gemm. Two batched products per layer.
        layers = config.text.num_hidden_layers
        counts = {"LayerNormalization": 2 * layers + 1, "MatMul": 8 * layers, "Gemm": 1, "Softmax": layers}
        if config.text.hidden_act not in WITH_TANH:
            counts["Tanh"] = 0  # the pooler's
        # Shapes that depend on values: where the tokens are and how many the longest text has. Only the CPU takes them.
        return counts | {"NonZero": 2 if target == "cpu" else 0}
    # Depthwise, two of squeeze-excite, projection, and the expansion where there is one; the stem.
    convolutions = 1 + sum(4 + (shape.expand_ratio != 1) for shape in block_shapes(config.vision))
    return {"Conv": convolutions, "BatchNormalization": 0, "Pad": 0, "ReduceMean": 0, "ReduceMax": 0}


def check_operators(model: ir.Model, contract: GraphContract, config: AlignConfig, target: str = "any") -> None:
    """Raises BuildError when an operator is there more or less often than `expected_operators` says."""
    found = Counter(node.op_type for node in model.graph)
    for operator, count in expected_operators(contract, config, target).items():
        if found[operator] != count:
            raise BuildError(
                f"the {contract.tower} graph holds {found[operator]} {operator} where {count} were expected; the "
                "installed torch or onnxscript folds another way than the pinned one (see constraints.txt)"
            )


def check_file(file: Path, contract: GraphContract, opset: int, data: str | None) -> None:
    """The written graph: ONNX's checker with full type and shape inference, then the contract.

    The full check is strict about types: operands that a schema gives one type must have one, as under TensorRT's
    strong typing, and the types that the file notes must be those that follow.

    Args:
        data: name of the file of external data, in the graph's folder, that may hold weights; None: no file may.

    Raises:
        BuildError: the file is not valid ONNX, mixes types, has weights elsewhere than in `data`, or its inputs,
            outputs or opset are not those asked for.
    """
    try:
        onnx.checker.check_model(str(file), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BuildError(f"{file.name} is not a valid graph: {str(error).splitlines()[0]}") from None
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
        planned = data or "no file"
        raise BuildError(f"{file.name} has weights in {', '.join(sorted(elsewhere))}; {planned} was planned for them")
    for side, value in wanted.items():
        if found[side] != value:
            raise BuildError(f"{file.name}: {side} is {found[side]}, the contract says {value}")


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorSpec(value.name, dtype, tuple(size.dim_param or size.dim_value for size in tensor.shape.dim))
