"""Which operators stay FP32: by rule, because of their values, or because of --fp16-keep."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from align_calibration.ranges import TensorRange
from align_exporter.export_options import FP16_HEADROOM
from align_exporter.fp16 import islands
from align_exporter.fp16.islands import assign_islands, float32_by_rule
from align_runtime import BuildError
from support.graphs import CHAIN, typed

ATTENTION = """
<ir_version: 10, opset_import: ["" : 20]>
g (int64[b, s] mask, float[b, 4, s] q, float[b, s, 4] k) => (float[b, s] y)
<float one = {1}, float lowest = {-3.4e38}, int64[1] axis = {1}, int64[1] last = {-1}, float[4] w, float[4] bias>
{
  [unsqueeze] mask3 = Unsqueeze (mask, axis)
  [cast] real = Cast <to = 1> (mask3)
  [sub] hidden = Sub (one, real)
  [mul] addend = Mul (hidden, lowest)
  [norm] q1 = LayerNormalization <axis = 1> (q, w, bias)
  [scores] scores = MatMul (k, q1)
  [masked] masked = Add (scores, addend)
  [softmax] weights = Softmax (masked)
  [values] context = MatMul (weights, k)
  [gelu] active = Gelu (context)
  [pool] pooled = ReduceMax <keepdims = 0> (active, last)
  [shape] size = Shape (pooled)
  [reshape] flat = Reshape (pooled, size)
  [length] length = ReduceL2 (flat, last)
  [div] y = Div (flat, length)
}
""".replace("float[4] w, float[4] bias", "float[4] w = {1, 1, 1, 1}, float[4] bias = {0, 0, 0, 0}")


def ranges(model: ir.Model, **large: float) -> list[TensorRange]:
    names = [value.name or "" for value in islands._values(model.graph) if not value.is_initializer()]
    return [TensorRange(name, "?", large.get(name, 1.0), large.get(name, 1.0), 2.0**-12) for name in names]


def kept(model: ir.Model, keep: tuple[str, ...] = (), headroom: float = FP16_HEADROOM, **large: float) -> set[str]:
    return {node.name or "" for node in assign_islands(model, ranges(model, **large), keep, headroom).float32}


def test_the_rules_keep_norms_masks_and_softmax() -> None:
    model = typed(ATTENTION)
    assert {node.name for node in float32_by_rule(model.graph)} == {
        *("cast", "sub", "mul", "masked", "softmax"),  # the mask, up to the softmax
        "norm",
        *("pool", "reshape", "length", "div"),  # the L2 norm and what pools before it
    }
    assert assign_islands(model, ranges(model), (), FP16_HEADROOM).islands == ()


def test_where_all_values_fit_there_are_no_islands() -> None:
    assert kept(typed(CHAIN)) == set()


def test_a_tensor_that_overflows_keeps_its_producer_and_readers() -> None:
    model = typed(CHAIN)
    found = assign_islands(model, ranges(model, c=70000.0), (), FP16_HEADROOM)
    assert {node.name for node in found.float32} == {"second", "third", "sum"}
    (island,) = found.islands
    assert island.nodes == ("second", "third", "sum")
    assert island.reasons == ("c reaches 70000, more than 8188",)


@pytest.mark.parametrize(("largest", "headroom", "stays"), [(9000, 8, True), (8000, 8, False), (9000, 7, False)])
def test_headroom(largest: float, headroom: float, stays: bool) -> None:
    assert bool(kept(typed(CHAIN), headroom=headroom, c=largest)) == stays


def test_a_nan_never_fits() -> None:
    assert kept(typed(CHAIN), c=float("nan")) == {"second", "third", "sum"}


def test_a_tensor_that_underflows_keeps_its_producer_and_readers() -> None:
    model = typed(CHAIN)
    found = [entry if entry.tensor != "e" else TensorRange("e", "Add", 1e-7, 1e-8, 0.25) for entry in ranges(model)]
    (island,) = assign_islands(model, found, (), FP16_HEADROOM).islands
    assert island.nodes == ("sum", "last")
    assert island.reasons == ("e underflows: RMS 1e-08, rounding error 25.0%",)


def test_a_weight_that_fp16_cannot_hold_keeps_its_reader() -> None:
    large = (
        CHAIN.replace("(c, w)", "(c, v)")
        .replace("> \n{", ">\n{")
        .replace("<float[4, 4] w", "<float[4, 4] v = {70000" + ", 1" * 15 + "}, float[4, 4] w")
    )
    model = typed(large)
    (island,) = assign_islands(model, ranges(model), (), FP16_HEADROOM).islands
    assert island.nodes == ("third",)
    assert island.reasons == ("v reaches 70000, more than 65504",)
    assert kept(typed(large.replace("{70000", "{60000"))) == set()  # weights need no headroom


def test_a_cheap_operator_between_islands_joins_them() -> None:
    """The Sigmoid between "first" and "second" has FP32 on both sides anyway."""
    model = typed(CHAIN)
    found = assign_islands(model, ranges(model), ("first", "second"), FP16_HEADROOM)
    assert {node.name for node in found.float32} == {"first", "act", "second"}
    assert found.islands[0].reasons == ("first matches --fp16-keep", "second matches --fp16-keep")


def test_patterns_of_fp16_keep() -> None:
    assert kept(typed(CHAIN), keep=("[st]*",)) == {"second", "third", "sum"}
    assert kept(typed(CHAIN), keep=("nothing*",)) == set()


def test_too_many_islands_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(islands, "MAX_ISLANDS", 1)
    kept(typed(CHAIN), keep=("first",))
    with pytest.raises(BuildError, match="2 FP32 islands, expected at most 1"):
        kept(typed(CHAIN), keep=("first", "last"))


SQUEEZE = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 4, 2, 2] x) => (float[n, 4, 2, 2] y)
<float[4, 4, 1, 1] w = {WEIGHT}>
{
  [pool] pooled = GlobalAveragePool (x)
  [reduce] z = Conv (pooled, w)
  [gate] gate = Sigmoid (z)
  [excite] excited = Mul (x, gate)
  [project] projected = Conv (excited, w)
  [next] n = Conv (projected, w)
  [sum] y = Add (n, projected)
}
""".replace("{WEIGHT}", "{" + ", ".join(["1"] * 16) + "}")


def test_squeeze_excite_stays_fp32_in_blocks_without_a_residual() -> None:
    assert {node.name for node in float32_by_rule(typed(SQUEEZE).graph)} == {"pool", "reduce", "gate", "excite"}
    residual = SQUEEZE.replace("(n, projected)", "(projected, x)").replace("[next] n = Conv (projected, w)", "")
    assert float32_by_rule(typed(residual).graph) == set()
