"""What an ONNX file says of itself: nodes, types, shapes. Its weights are neither read nor copied; needs no onnx.

Field numbers are those of onnx.proto (github.com/onnx/onnx, onnx/onnx.proto, IR version 14 and before: protobuf never
gives a number a new meaning). Read is the plain graph of one model; what would hide nodes or weights from a reader of
that graph (functions, subgraphs, sparse initializers) is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

from align_runtime.errors import BundleError
from align_runtime.protobuf import FieldBudget, Message, WireError, integer, integers, message

MAX_RANK = 8
MAX_SIZE = (1 << 31) - 1  # of one dimension
DEFAULT_DOMAINS = ("", "ai.onnx")

# TensorProto.DataType by numpy's names; the smaller floats have none and keep their number.
ELEMENT_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type and shape of a tensor.

    Attributes:
        dtype: numpy's name, or ``"type 17"`` for an element type that numpy has not.
        shape: sizes; the name of a free dimension, ``""`` where it has none; None where the file gives no shape.
    """

    dtype: str
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True, slots=True)
class Node:
    """An operator. `integers` are its attributes of type int, `tensors` the types of those that are tensors."""

    op_type: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    integers: Mapping[str, int]
    tensors: tuple[TensorType, ...]


@dataclass(frozen=True)
class OnnxGraph:
    """A model's graph.

    Attributes:
        opset: version of the default ONNX domain.
        nodes: in the order of the file.
        initializers: type of each by name; the shape is always known.
        values: types of inputs, outputs and everything between that the file gives a type.
    """

    opset: int
    nodes: tuple[Node, ...]
    initializers: Mapping[str, TensorType]
    values: Mapping[str, TensorType]


def read_graph(file: Path) -> OnnxGraph:
    """Reads the graph in `file`.

    Raises:
        BundleError: the file is missing, truncated, damaged, no ONNX model, or holds what this reader refuses.
    """
    try:
        with file.open("rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as data:
            return _model(Message(data, 0, len(data), FieldBudget()))
    except OSError as reason:
        raise BundleError(f"{file.name} cannot be read: {reason.strerror}") from None
    except ValueError as reason:  # WireError, or mmap on an empty file
        raise BundleError(
            f"{file.name} is not an ONNX graph that can be checked: {reason}; copy the bundle or export it again"
        ) from None


def _model(model: Message) -> OnnxGraph:
    opset = None
    graph = _GraphParts()
    for number, value in model.fields():
        if number == 7:
            graph.add(message(value))
        elif number == 8:
            domain, version = _opset(message(value))
            opset = version if domain in DEFAULT_DOMAINS else opset
        elif number == 25:
            raise WireError("it holds functions")
    if opset is None or not graph.nodes:
        raise WireError("it holds no nodes or no opset of the default domain")
    return OnnxGraph(opset, tuple(graph.nodes), graph.initializers, graph.values)


def _opset(entry: Message) -> tuple[str, int]:
    domain, version = "", 0
    for number, value in entry.fields():
        if number == 1:
            domain = message(value).text()
        elif number == 2:
            version = integer(value)
    return domain, version


class _GraphParts:
    """GraphProto, gathered: a file may give it in several pieces, which protobuf joins."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.initializers: dict[str, TensorType] = {}
        self.values: dict[str, TensorType] = {}

    def add(self, graph: Message) -> None:
        for number, value in graph.fields():
            if number == 1:
                self.nodes.append(_node(message(value)))
            elif number == 5:
                name, tensor = _tensor(message(value))
                if name in self.initializers:
                    raise WireError(f"it holds two initializers named {name!r}")
                self.initializers[name] = tensor
            elif number in (11, 12, 13):  # input, output, value_info
                name, described = _value_info(message(value))
                if described is not None and self.values.setdefault(name, described) != described:
                    raise WireError(f"it gives the value {name!r} two types")
            elif number == 15:
                raise WireError("it holds sparse initializers")


def _node(node: Message) -> Node:
    texts = {3: "", 4: "", 7: ""}  # name, op_type, domain
    inputs: list[str] = []
    outputs: list[str] = []
    numbers: dict[str, int] = {}
    tensors: list[TensorType] = []
    for number, value in node.fields():
        if number == 1:
            inputs.append(message(value).text())
        elif number == 2:
            outputs.append(message(value).text())
        elif number in texts:
            texts[number] = message(value).text()
        elif number == 5:
            _attribute(message(value), numbers, tensors)
    if not texts[4].isidentifier():
        raise WireError(f"the node {texts[3]!r} has the operator {texts[4][:100]!r}")
    return Node(texts[4], texts[7], texts[3], tuple(inputs), tuple(outputs), numbers, tuple(tensors))


def _attribute(attribute: Message, numbers: dict[str, int], tensors: list[TensorType]) -> None:
    """Adds an AttributeProto that is an int to `numbers`, the types of its tensors to `tensors`."""
    name, held = "", None
    for number, value in attribute.fields():
        if number == 1:
            name = message(value).text()
        elif number == 3:
            held = integer(value)
        elif number in (5, 10):  # t, tensors
            tensors.append(_tensor(message(value))[1])
        elif number in (6, 11, 22, 23):  # g, graphs, sparse_tensor, sparse_tensors
            raise WireError(f"the attribute {name!r} holds a subgraph or a sparse tensor")
    if held is not None:
        numbers[name] = held


def _tensor(tensor: Message) -> tuple[str, TensorType]:
    """Name and type of a TensorProto; where its values are does not matter."""
    name, element_type, shape = "", 0, list[int | str]()
    for number, value in tensor.fields():
        if number == 1:
            for size in integers(value):
                _append(shape, size)
        elif number == 2:
            element_type = integer(value)
        elif number == 8:
            name = message(value).text()
    return name, TensorType(_dtype(element_type), tuple(shape))


def _value_info(value_info: Message) -> tuple[str, TensorType | None]:
    """Name and type of a ValueInfoProto; None where it is no tensor or its element type is not given."""
    name, described = "", None
    for number, value in value_info.fields():
        if number == 1:
            name = message(value).text()
        elif number == 2:
            for kind, tensor in message(value).fields():
                if kind == 1:  # tensor_type: sequences, maps and optionals are not multiplied
                    described = _tensor_type(message(tensor))
    return name, described


def _tensor_type(tensor: Message) -> TensorType | None:
    element_type = 0
    shape: list[int | str] | None = None
    for number, value in tensor.fields():
        if number == 1:
            element_type = integer(value)
        elif number == 2:
            shape = [] if shape is None else shape
            _add_dimensions(message(value), shape)
    if not element_type:
        return None
    return TensorType(_dtype(element_type), None if shape is None else tuple(shape))


def _add_dimensions(dimensions: Message, shape: list[int | str]) -> None:
    for number, value in dimensions.fields():
        if number == 1:
            size: int | str = ""
            for kind, content in message(value).fields():
                if kind == 1:
                    size = integer(content)
                elif kind == 2:
                    size = message(content).text()
            _append(shape, size)


def _append(shape: list[int | str], size: int | str) -> None:
    if len(shape) == MAX_RANK or (isinstance(size, int) and not 0 <= size <= MAX_SIZE):
        raise WireError(f"a tensor has the size {size!r} as its dimension {len(shape) + 1}")
    shape.append(size)


def _dtype(element_type: int) -> str:
    return ELEMENT_TYPES.get(element_type, f"type {element_type}")
