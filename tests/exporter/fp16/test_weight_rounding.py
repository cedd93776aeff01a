"""Rounding of weights to FP16 that preserves channel means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from align_calibration.channel_means import measure_channel_means
from align_exporter.fp16.weight_rounding import round_preserving_means, round_weights
from align_exporter.graph.ir_helpers import constant_values, operand, replace_constant
from support.graphs import constants, run_graph, typed, unshared

BLOCK = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 16, 6, 6] x) => (float[n, 8, 6, 6] y)
<float[64, 16, 1, 1] w1 = {W1}, float[64] b1 = {B1}, float[64, 1, 3, 3] w2 = {W2}, float[64] b2 = {B2},
 float[8, 64, 1, 1] w3 = {W3}, float[8] b3 = {B3}>
{
  [expand] e = Conv (x, w1, b1)
  se = Sigmoid (e)
  a = Mul (e, se)
  [depthwise] d = Conv <group = 64, pads = [1, 1, 1, 1]> (a, w2, b2)
  sd = Sigmoid (d)
  c = Mul (d, sd)
  [project] y = Conv (c, w3, b3)
}
"""
SIZES = {"W1": 64 * 16, "B1": 64, "W2": 64 * 9, "B2": 64, "W3": 8 * 64, "B3": 8}


def block() -> ir.Model:
    generator = np.random.default_rng(0)
    text = BLOCK
    for name, size in SIZES.items():
        values = generator.standard_normal(size) * 0.2 + (2.0 if name in ("B1", "B2") else 0.0)
        text = text.replace("{" + name + "}", "{" + ", ".join(f"{value:.7f}" for value in values) + "}")
    return typed(text)


def images(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((16, 16, 6, 6)).astype(np.float32)


def outputs(model: ir.Model, x: np.ndarray) -> np.ndarray:
    return run_graph(model, {"x": x})[0]


def round_to_nearest(model: ir.Model, names: tuple[str, ...]) -> None:
    for name in names:
        replace_constant(model.graph.initializers[name], constants(model)[name].astype(np.float16).astype(np.float32))


WEIGHTS, BIASES = ("w1", "w2", "w3"), ("b1", "b2", "b3")


def test_channel_means_are_preserved_on_unseen_images(tmp_path: Path) -> None:
    exact, nearest, kept = block(), block(), block()
    round_to_nearest(nearest, (*WEIGHTS, *BIASES))
    means = measure_channel_means(kept, [{"x": images(1)}], tmp_path)
    assert round_weights(kept, means, ()) == 3
    round_to_nearest(kept, BIASES)

    def shift(model: ir.Model) -> float:
        difference = outputs(model, images(2)) - outputs(exact, images(2))
        return float(np.abs(difference.mean((0, 2, 3))).mean())

    assert shift(kept) < shift(nearest) / 4


def test_weights_are_one_of_the_two_nearest_fp16_values(tmp_path: Path) -> None:
    exact, kept = block(), block()
    round_weights(kept, measure_channel_means(kept, [{"x": images(1)}], tmp_path), ())
    for name in WEIGHTS:
        before, after = (constants(model)[name] for model in (exact, kept))
        np.testing.assert_array_equal(after, after.astype(np.float16))
        nearest = before.astype(np.float16)
        other = np.nextafter(nearest, np.where(nearest > before, -np.inf, np.inf).astype(np.float16))
        assert ((after == nearest) | (after == other)).all()
        assert (after != nearest).any(), f"no weight of {name} was moved"


def test_operators_that_stay_fp32_keep_their_weights(tmp_path: Path) -> None:
    exact, kept = block(), block()
    means = measure_channel_means(kept, [{"x": images(1)}], tmp_path)
    assert round_weights(kept, means, {node for node in kept.graph if node.name == "depthwise"}) == 2
    for name, same in (("w1", False), ("w2", True), ("w3", False)):
        before, after = (constants(model)[name] for model in (exact, kept))
        assert np.array_equal(before, after) == same


def test_a_shift_of_the_inputs_is_compensated() -> None:
    """The inputs have other means in FP16 than in FP32; the means of the outputs are preserved."""
    generator = np.random.default_rng(0)
    weights, inputs = generator.standard_normal((4, 200)), generator.uniform(1, 3, (1, 200))
    shifted, bias = inputs + 2e-5, np.array([0.5, -1.25, 3.0, 0.1])
    rounded, left = round_preserving_means(weights, inputs, shifted, bias)
    wanted = (weights * inputs).sum(1) + bias
    found = (rounded.astype(np.float64) * shifted).sum(1) + bias.astype(np.float16)
    np.testing.assert_allclose(found - wanted, left, atol=1e-12)
    assert (np.abs(left) < np.spacing(np.abs(wanted).astype(np.float16)) / 32).all()


def test_inputs_with_mean_0_are_rounded_to_nearest() -> None:
    weights = np.random.default_rng(0).standard_normal((4, 50))
    rounded, left = round_preserving_means(
        weights, np.zeros((1, 50)), np.zeros((1, 50)), np.array([0.1, 0.2, 0.3, 0.4])
    )
    np.testing.assert_array_equal(rounded, weights.astype(np.float16))
    assert left == pytest.approx(np.array([0.1, 0.2, 0.3, 0.4]).astype(np.float16) - np.array([0.1, 0.2, 0.3, 0.4]))


def test_convolutions_that_share_weights_are_rounded_each_for_its_own_input(tmp_path: Path) -> None:
    """Two expansions with one weight, whose inputs have different means."""
    text = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 16, 6, 6] x) => (float[n, 16, 6, 6] y)
<float[16, 16, 1, 1] w = {W}, float[16] b = {B}>
{
  [first] e = Conv (x, w, b)
  s = Sigmoid (e)
  [second] y = Conv (s, w, b)
}
"""
    generator = np.random.default_rng(0)
    for name, size in {"W": 256, "B": 16}.items():
        values = ", ".join(f"{value:.7f}" for value in generator.standard_normal(size) * 0.2)
        text = text.replace("{" + name + "}", "{" + values + "}")
    shared, several = typed(text), unshared(typed(text))
    means = measure_channel_means(shared, [{"x": images(0)}], tmp_path)
    for model in (shared, several):
        assert round_weights(model, means, ()) == 2
    np.testing.assert_array_equal(outputs(shared, images(1)), outputs(several, images(1)))
    first, second = (constant_values(operand(node, 1)) for node in shared.graph if node.op_type == "Conv")
    assert (first != second).any()
