"""The reader of ONNX files: what onnx itself reads, and nothing but BundleError for what is damaged or hostile."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from align_runtime import BundleError
from align_runtime.onnx_file import ELEMENT_TYPES, MAX_RANK, Node, OnnxGraph, TensorType, read_graph
from align_runtime.precision import content_of
from align_runtime.protobuf import MAX_FIELDS, MAX_TEXT_BYTES
from support import onnx_models


def described(model: onnx.ModelProto) -> OnnxGraph:
    """What `read_graph` must find in `model`, found by onnx."""

    def tensor(held: onnx.TensorProto) -> TensorType:
        return TensorType(helper.tensor_dtype_to_np_dtype(held.data_type).name, tuple(held.dims))

    def attribute(node: onnx.NodeProto, kind: int) -> list[onnx.AttributeProto]:
        return [held for held in node.attribute if held.type == kind]

    graph = model.graph
    values = {}
    for held in [*graph.value_info, *graph.input, *graph.output]:
        kind = held.type.tensor_type
        sizes = (getattr(size, size.WhichOneof("value") or "dim_param") for size in kind.shape.dim)
        shape = tuple(sizes) if kind.HasField("shape") else None
        values[held.name] = TensorType(helper.tensor_dtype_to_np_dtype(kind.elem_type).name, shape)
    return OnnxGraph(
        opset=next(entry.version for entry in model.opset_import if entry.domain == ""),
        nodes=tuple(
            Node(
                node.op_type,
                node.domain,
                node.name,
                tuple(node.input),
                tuple(node.output),
                {held.name: held.i for held in attribute(node, onnx.AttributeProto.INT)},
                tuple(tensor(held.t) for held in attribute(node, onnx.AttributeProto.TENSOR)),
            )
            for node in graph.node
        ),
        initializers={held.name: tensor(held) for held in graph.initializer},
        values=values,
    )


@pytest.mark.parametrize("name", ["vision_model", "text_model", "text_model_cpu"])
def test_reads_an_exported_graph_as_onnx_does(tiny_bundle: Path, name: str) -> None:
    file = tiny_bundle / "onnx" / f"{name}.onnx"
    found = read_graph(file)
    assert len(found.nodes) > 100
    assert found == described(onnx.load(file, load_external_data=False))


def test_reads_a_graph_made_by_hand_as_onnx_does(tmp_path: Path) -> None:
    made = onnx_models.half_model()
    made.graph.node[0].attribute.append(helper.make_attribute("axis", -1))
    made.graph.node[0].attribute.append(helper.make_attribute("pads", [0, 1, -1]))
    made.graph.node[0].doc_string = "not needed"
    made.graph.input.append(onnx_models.value("input", ["batch", 7, None]))
    made.graph.input.append(helper.make_tensor_value_info("shapeless", TensorProto.INT64, None))
    made.graph.output.append(onnx_models.value("scalar", []))
    made.metadata_props.add(key="key", value="value")
    assert read_graph(onnx_models.write(tmp_path, made)) == described(made)


def test_numbers_of_element_types_are_those_of_onnx() -> None:
    names = {number: helper.tensor_dtype_to_np_dtype(number).name for number in ELEMENT_TYPES}
    assert names | {TensorProto.STRING: "string"} == ELEMENT_TYPES  # numpy's name is that of any object


def test_a_graph_in_two_pieces_is_joined_as_protobuf_joins_it(tmp_path: Path) -> None:
    """Else a second piece could hide what the graph computes."""
    first, second = onnx_models.half_model(), onnx.ModelProto()
    second.graph.node.append(helper.make_node("Relu", ["out"], ["last"]))
    file = tmp_path / "graph.onnx"
    file.write_bytes(first.SerializeToString() + second.SerializeToString())
    assert read_graph(file).nodes[-1].op_type == "Relu"
    assert read_graph(file) == described(onnx.load(file))


def test_packed_and_plain_dimensions(tmp_path: Path) -> None:
    """onnx writes one field for each dimension; other writers pack them."""
    tensor = varint_field(2, 1) + bytes_field(1, bytes([2, 0x80, 1])) + varint_field(1, 5) + bytes_field(8, b"w")
    file = tmp_path / "graph.onnx"
    file.write_bytes(onnx_models.half_model().SerializeToString() + bytes_field(7, bytes_field(5, tensor)))
    assert read_graph(file).initializers["w"] == TensorType("float32", (2, 128, 5))


# ── files that are refused ───────────────────────────────────────────────────────────────────────────────────────────


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def varint_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def bytes_field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def in_graph(content: bytes) -> bytes:
    return onnx_models.half_model().SerializeToString() + bytes_field(7, content)


def with_subgraph() -> bytes:
    made = onnx_models.half_model()
    made.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=onnx_models.half_model().graph))
    return made.SerializeToString()


def with_functions() -> bytes:
    made = onnx_models.half_model()
    made.functions.add(name="hidden", domain="local")
    return made.SerializeToString()


def with_sparse_weights() -> bytes:
    made = onnx_models.half_model()
    made.graph.sparse_initializer.add(dims=[4, 4])
    return made.SerializeToString()


def with_two(part: str) -> bytes:
    made = onnx_models.half_model()
    if part == "initializer":
        made.graph.initializer.append(onnx_models.weight("dense", [1]))
    else:
        made.graph.value_info.append(onnx_models.value("x", ["batch", 4, "sequence", 8]))
    return made.SerializeToString()


def with_rank(rank: int) -> bytes:
    made = onnx_models.half_model()
    made.graph.initializer.append(onnx_models.weight("many", [1] * rank))
    return made.SerializeToString()


def with_size(size: int) -> bytes:
    made = onnx_models.half_model()
    made.graph.initializer.add(name="odd", data_type=1, dims=[size])
    return made.SerializeToString()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", "graph.onnx is not an ONNX graph that can be checked: cannot mmap an empty file"),
        (lambda: b"hello world, this is no graph", "is not an ONNX graph that can be checked"),
        (lambda: onnx.ModelProto(ir_version=10).SerializeToString(), "no nodes or no opset of the default domain"),
        (lambda: bytes_field(7, bytes_field(1, bytes_field(4, b"Add"))), "no nodes or no opset"),
        (lambda: b"\x80" * 20, "a number at byte 0 does not end"),
        (lambda: varint_field(1, 1) + b"\xff", "a number at byte 2 does not end"),
        (lambda: b"\x00\x00", "a field before byte 1 has the number 0"),
        (lambda: varint(1 << 40) + b"\x00", "has the number 137438953472"),
        (lambda: b"\x0b\x0c", "a field before byte 1 has the wire type 3"),
        (lambda: b"\x3a\xff\xff\xff\xff\x7f", "a field at byte 6 has 34359738367 bytes where 0 are left"),
        (lambda: b"\x09\x00", "a field at byte 1 has 8 bytes where 1 are left"),
        (lambda: varint_field(7, 1), "bytes were expected where the number 1 is"),
        (lambda: bytes_field(8, bytes_field(2, b"20")), "a number was expected where bytes are"),
        (lambda: in_graph(bytes_field(1, bytes_field(4, b"\xff"))), "is not UTF-8"),
        (lambda: in_graph(bytes_field(1, bytes_field(4, b"a" * (MAX_TEXT_BYTES + 1)))), "has 4097 bytes"),
        (lambda: in_graph(bytes_field(1, bytes_field(3, b"who"))), "the node 'who' has the operator ''"),
        (lambda: in_graph(bytes_field(1, bytes_field(4, b"two\nlines"))), r"the node '' has the operator 'two\nlines'"),
        (with_subgraph, "the attribute 'then_branch' holds a subgraph"),
        (with_functions, "it holds functions"),
        (with_sparse_weights, "it holds sparse initializers"),
        (lambda: with_two("initializer"), "two initializers named 'dense'"),
        (lambda: with_two("type"), "gives the value 'x' two types"),
        (lambda: with_rank(MAX_RANK + 1), "has the size 1 as its dimension 9"),
        (lambda: with_size(-1), "has the size -1 as its dimension 1"),
        (lambda: with_size(1 << 40), "has the size 1099511627776 as its dimension 1"),
    ],
)
def test_what_is_no_plain_graph_is_refused(content: Callable[[], bytes], message: str, tmp_path: Path) -> None:
    file = tmp_path / "graph.onnx"
    file.write_bytes(content())
    with pytest.raises(BundleError) as caught:
        read_graph(file)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_limits_themselves_pass(tmp_path: Path) -> None:
    file = tmp_path / "graph.onnx"
    for content in (with_rank(MAX_RANK), with_size((1 << 31) - 1)):
        file.write_bytes(content)
        read_graph(file)
    file.write_bytes(in_graph(bytes_field(1, bytes_field(4, b"a" * MAX_TEXT_BYTES))))
    assert len(read_graph(file).nodes[-1].op_type) == MAX_TEXT_BYTES


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nothing\.onnx cannot be read: No such file"):
        read_graph(tmp_path / "nothing.onnx")
    with pytest.raises(BundleError, match="cannot be read: Is a directory"):
        read_graph(tmp_path)


def test_a_file_truncated_anywhere_is_refused_or_a_whole_prefix(tmp_path: Path) -> None:
    content = onnx_models.half_model().SerializeToString()
    file = tmp_path / "graph.onnx"
    refused = 0
    for length in range(1, len(content)):
        file.write_bytes(content[:length])
        try:
            read_graph(file)
        except BundleError:
            refused += 1
    # The graph's length stands at its beginning, so only cuts in what follows it could pass: there the opset is lost.
    assert refused == len(content) - 1


def test_mutated_bytes_give_a_graph_or_a_bundle_error(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    original = onnx_models.half_model().SerializeToString()
    file = tmp_path / "graph.onnx"
    outcomes = {"counted": 0, "refused": 0}
    for _ in range(1500):
        content = bytearray(original)
        for _ in range(int(generator.integers(1, 5))):
            at = int(generator.integers(len(content)))
            kind = int(generator.integers(4))
            if kind == 0:
                content[at] = int(generator.integers(256))
            elif kind == 1:
                content[at] ^= 1 << int(generator.integers(8))
            elif kind == 2:
                del content[at : at + int(generator.integers(1, 20))]
            else:
                content[at:at] = bytes(content[at : at + int(generator.integers(1, 40))])
        file.write_bytes(content or b"\0")
        try:
            content_of(file, 16)
            outcomes["counted"] += 1
        except BundleError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50


def test_weights_are_not_read_into_memory(tmp_path: Path) -> None:
    made = onnx_models.half_model()
    made.graph.initializer.append(onnx_models.weight("large", [4 << 20]))
    file = onnx_models.write(tmp_path, made)
    tracemalloc.start()
    assert read_graph(file).initializers["large"].shape == (4 << 20,)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("filler", [varint_field(1, 1), bytes_field(7, bytes_field(11, b""))])
def test_a_file_of_nothing_but_fields_ends_soon(filler: bytes, tmp_path: Path) -> None:
    file = tmp_path / "graph.onnx"
    file.write_bytes(filler * (20 * MAX_FIELDS))
    start = time.monotonic()
    with pytest.raises(BundleError, match=f"it has more than {MAX_FIELDS} fields"):
        read_graph(file)
    assert time.monotonic() - start < 30  # two seconds on an idle machine; all of the file would take forty


def test_packed_dimensions_without_end(tmp_path: Path) -> None:
    file = tmp_path / "graph.onnx"
    file.write_bytes(bytes_field(7, bytes_field(5, bytes_field(1, b"\x00" * (20 * MAX_FIELDS)))))
    with pytest.raises(BundleError, match="as its dimension 9"):
        read_graph(file)
