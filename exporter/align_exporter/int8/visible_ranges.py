"""What the readers of a tensor can see of its values: the range that matters is the one behind them.

A convolution whose only reader clips to 0 … 6 may give −50 … 18: integers spent on the values outside are lost. A swish
maps all that is below −8 almost to 0, a sigmoid all that is above 8 almost to 1. So where every reader of a tensor is
a function of that tensor alone, applied value by value, the range of the tensor is chosen by the error behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from align_calibration.observers import Activation
from align_exporter.graph.ir_helpers import constant_values, name_of, optional_operand

# Operators that are applied value by value; of two operands, one may be a constant with a single value.
POINTWISE = frozenset(
    "Abs Add Clip Div Elu Erf Exp Gelu HardSigmoid HardSwish LeakyRelu Mish Mul Neg Pow Relu Sigmoid Softplus Sub "
    "Tanh".split()
)
SEEN = "seen"


def visible_through(graph: ir.Graph) -> Mapping[str, Activation]:
    """For the tensors whose readers are all pointwise functions of them: what these readers make of values."""
    results = (value for node in graph for value in node.outputs if value.dtype == ir.DataType.FLOAT)
    found = {name_of(value): _pointwise_readers(value) for value in results}
    return {name: _activation(name, nodes, graph) for name, nodes in found.items() if nodes}


@dataclass(frozen=True)
class Bounds:
    """What a saturating operator clips to; infinite where it does not."""

    low: float
    high: float


def saturation(value: ir.Value) -> Bounds | None:
    """The bounds of `value` where a Relu or a Clip with constant bounds computes it."""
    node = value.producer()
    if node is None or node.op_type not in ("Clip", "Relu"):
        return None
    if node.op_type == "Relu":
        return Bounds(0.0, np.inf)
    ends = [optional_operand(node, index) for index in (1, 2)]
    if any(end is not None and end.const_value is None for end in ends):
        return None
    low, high = (
        fallback if end is None else float(constant_values(end))
        for end, fallback in zip(ends, (-np.inf, np.inf), strict=True)
    )
    return Bounds(low, high)


def _pointwise_readers(value: ir.Value) -> list[ir.Node]:
    """The nodes behind `value` that compute pointwise functions of it alone; none where a reader does more."""
    inside, nodes = {value}, list[ir.Node]()
    waiting = [value]
    while waiting:
        for node in dict.fromkeys(use.node for use in waiting.pop(0).uses()):
            if (
                node not in nodes
                and node.op_type in POINTWISE
                and all(other is None or other in inside or _is_single(other) for other in node.inputs)
            ):
                nodes.append(node)
                inside.add(node.outputs[0])
                waiting.append(node.outputs[0])
                waiting += [other for other in node.inputs if other in inside and other is not None]
    readers = {use.node for use in value.uses()}
    return nodes if readers and readers <= set(nodes) and not value.is_graph_output() else []


def _is_single(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.size == 1


def _activation(name: str, nodes: list[ir.Node], graph: ir.Graph) -> Activation:
    """Evaluates `nodes`, which read the tensor `name`; several results are put side by side."""
    inside = set(nodes)
    computed = [node.outputs[0] for node in nodes]
    seen = [
        value for value in computed if value.is_graph_output() or any(use.node not in inside for use in value.uses())
    ]
    outputs = [ir.val(f"{SEEN}/{index}", dtype=ir.DataType.FLOAT, shape=ir.Shape(["n"])) for index in range(len(seen))]
    values = {name: ir.val(name, dtype=ir.DataType.FLOAT, shape=ir.Shape(["n"]))}
    constants = [
        other for node in nodes for other in node.inputs if other is not None and other.const_value is not None
    ]
    initializers = {}
    for constant in constants:
        copy = ir.val(name_of(constant), const_value=constant.const_value)
        values[name_of(constant)] = initializers[name_of(constant)] = copy
    order = {node: index for index, node in enumerate(graph)}
    clones = list[ir.Node]()
    for node in sorted(nodes, key=order.__getitem__):
        output = ir.val(name_of(node.outputs[0]), dtype=ir.DataType.FLOAT)
        inputs = [None if other is None else values[name_of(other)] for other in node.inputs]
        clones.append(
            ir.Node(node.domain, node.op_type, inputs, attributes=list(node.attributes.values()), outputs=[output])
        )
        values[name_of(output)] = output
    for value, output in zip(seen, outputs, strict=True):
        clones.append(ir.node("Identity", [values[name_of(value)]], outputs=[output]))
    subgraph = ir.Graph(
        [values[name]],
        outputs,
        nodes=clones,
        initializers=list(initializers.values()),
        name="seen",
        opset_imports=graph.opset_imports,
    )
    file = ir.to_proto(ir.Model(subgraph, ir_version=10)).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def apply(inputs: NDArray[np.floating]) -> NDArray[np.floating]:
        flat = np.ascontiguousarray(inputs, dtype=np.float32).ravel()
        found = [part.reshape(inputs.shape) for part in session.run(None, {name: flat})]
        return np.stack(found, axis=-1).astype(np.float64)

    return apply
