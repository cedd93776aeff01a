"""The conversion: one type per operator, one cast per value, weights in the type of their readers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from align_exporter.fp16.convert import convert_to_fp16
from align_exporter.fp16.emulate import emulate_fp16
from align_exporter.graph.passes.unused import RemoveUnused
from support.graphs import CHAIN, typed

HALF, SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT


def converted(text: str, *float32: str) -> tuple[ir.Model, int]:
    model = typed(text)
    casts = convert_to_fp16(model, {node for node in model.graph if node.name in float32})
    RemoveUnused()(model)
    return model, casts


def test_all_of_it(tmp_path: Path) -> None:
    model, casts = converted(CHAIN, "last")
    assert casts == 2  # the input, and e
    assert Counter(node.op_type for node in model.graph)["Cast"] == 2
    types = {node.name: node.outputs[0].dtype for node in model.graph}
    assert types == {
        **dict.fromkeys(["x/float16", "first", "act", "second", "third", "sum"], HALF),
        **dict.fromkeys(["e/float32", "last"], SINGLE),
    }
    assert [value.dtype for value in (*model.graph.inputs, *model.graph.outputs)] == [SINGLE, SINGLE]
    ir.save(model, tmp_path / "graph.onnx")
    onnx.checker.check_model(str(tmp_path / "graph.onnx"), full_check=True)


def test_one_cast_serves_all_readers() -> None:
    model, casts = converted(CHAIN, "third", "sum", "last")
    assert casts == 2  # the input, and c for both of its readers
    (cast,) = [node for node in model.graph if node.name == "c/float32"]
    assert {use.node.name for use in cast.outputs[0].uses()} == {"third", "sum"}


def test_weights_are_stored_in_the_type_of_their_readers() -> None:
    def weights(model: ir.Model) -> dict[str, ir.DataType]:
        return {name: value.const_value.dtype for name, value in model.graph.initializers.items() if value.const_value}

    assert weights(converted(CHAIN)[0]) == {"w": HALF}
    assert weights(converted(CHAIN, "last")[0]) == {"w": SINGLE, "w/float16": HALF}
    everything = ("first", "act", "second", "third", "sum", "last")
    model, casts = converted(CHAIN, *everything)
    assert (weights(model), casts) == ({"w": SINGLE}, 0)


def test_what_reads_only_a_shape_needs_no_cast() -> None:
    text = CHAIN.replace(
        "[last] y = MatMul (e, w)", "[s] size = Shape (c)\n  [r] f = Reshape (e, size)\n  y = MatMul (f, w)"
    )
    model, _ = converted(text, "second", "third", "sum", "r")
    shape = next(node for node in model.graph if node.op_type == "Shape")
    assert shape.inputs[0] is not None
    assert shape.inputs[0].name == "c"


def test_a_cast_from_integers_goes_straight_to_fp16() -> None:
    text = CHAIN.replace("float[n, 4] x)", "uint8[n, 4] pixels)").replace(
        "{\n", "{\n  [cast] x = Cast <to = 1> (pixels)\n"
    )
    model, casts = converted(text, "last")
    assert casts == 1
    cast = model.graph.node(0)
    assert (cast.attributes.get_int("to"), cast.outputs[0].dtype) == (HALF, HALF)


def test_computes_the_same_up_to_rounding() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)

    def run(model: ir.Model) -> np.ndarray:
        session = onnxruntime.InferenceSession(
            ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return session.run(None, {"x": x})[0]

    exact = run(typed(CHAIN))
    half = run(emulate_fp16(converted(CHAIN, "last")[0]))
    assert 0 < np.abs(half / exact - 1).max() < 2e-3
