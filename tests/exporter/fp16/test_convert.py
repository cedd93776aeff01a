"""The conversion to FP16: one type per operator, one cast per tensor, weights in the type of their readers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from align_exporter.fp16.convert import convert_to_fp16, emulate_fp16
from align_exporter.graph.ir_helpers import operand
from align_exporter.graph.passes.clean_up import RemoveUnused
from support.graphs import CHAIN, constants, run_graph, typed

FLOAT16, FLOAT32 = ir.DataType.FLOAT16, ir.DataType.FLOAT


def converted(text: str, *float32: str) -> tuple[ir.Model, int]:
    model = typed(text)
    casts = convert_to_fp16(model, {node for node in model.graph if node.name in float32})
    RemoveUnused()(model)
    return model, casts


def test_types_and_casts_of_a_converted_graph(tmp_path: Path) -> None:
    model, casts = converted(CHAIN, "last")
    assert casts == 2  # the input, and e
    assert Counter(node.op_type for node in model.graph)["Cast"] == 2
    types = {node.name: node.outputs[0].dtype for node in model.graph}
    assert types == {
        **dict.fromkeys(["x/float16", "first", "act", "second", "third", "sum"], FLOAT16),
        **dict.fromkeys(["e/float32", "last"], FLOAT32),
    }
    assert [value.dtype for value in (*model.graph.inputs, *model.graph.outputs)] == [FLOAT32, FLOAT32]
    ir.save(model, tmp_path / "graph.onnx")
    onnx.checker.check_model(str(tmp_path / "graph.onnx"), full_check=True)


def test_one_cast_serves_all_readers() -> None:
    model, casts = converted(CHAIN, "third", "sum", "last")
    assert casts == 2  # the input, and c for both of its readers
    (cast,) = [node for node in model.graph if node.name == "c/float32"]
    assert {use.node.name for use in cast.outputs[0].uses()} == {"third", "sum"}


def test_weights_are_stored_in_the_type_of_their_readers() -> None:
    def weights(model: ir.Model) -> dict[str, str]:
        return {name: values.dtype.name for name, values in constants(model).items()}

    assert weights(converted(CHAIN)[0]) == {"w": "float16"}
    assert weights(converted(CHAIN, "last")[0]) == {"w": "float32", "w/float16": "float16"}
    everything = ("first", "act", "second", "third", "sum", "last")
    model, casts = converted(CHAIN, *everything)
    assert (weights(model), casts) == ({"w": "float32"}, 0)


def test_a_reader_of_the_shape_alone_needs_no_cast() -> None:
    text = CHAIN.replace(
        "[last] y = MatMul (e, w)", "[s] size = Shape (c)\n  [r] f = Reshape (e, size)\n  y = MatMul (f, w)"
    )
    model, _ = converted(text, "second", "third", "sum", "r")
    shape = next(node for node in model.graph if node.op_type == "Shape")
    assert operand(shape, 0).name == "c"


def test_a_cast_from_integers_goes_straight_to_fp16() -> None:
    text = CHAIN.replace("float[n, 4] x)", "uint8[n, 4] pixels)").replace(
        "{\n", "{\n  [cast] x = Cast <to = 1> (pixels)\n"
    )
    model, casts = converted(text, "last")
    assert casts == 1
    cast = model.graph.node(0)
    assert (cast.attributes.get_int("to"), cast.outputs[0].dtype) == (FLOAT16, FLOAT16)


def test_computes_the_same_up_to_rounding() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    exact = run_graph(typed(CHAIN), {"x": x})[0]
    fp16 = run_graph(emulate_fp16(converted(CHAIN, "last")[0]), {"x": x})[0]
    assert 0 < np.abs(fp16 / exact - 1).max() < 2e-3
