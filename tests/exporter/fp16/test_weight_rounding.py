"""Rounding of weights that keeps the means of channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from align_calibration.channel_means import measure_channel_means
from align_exporter.fp16.weight_rounding import round_preserving_means, round_weights
from support.graphs import typed

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
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def nearest(model: ir.Model, names: tuple[str, ...]) -> None:
    for name in names:
        value = model.graph.initializers[name]
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy().astype(np.float16).astype(np.float32), name=name)


WEIGHTS, BIASES = ("w1", "w2", "w3"), ("b1", "b2", "b3")


def test_channels_keep_their_means_on_images_not_seen(tmp_path: Path) -> None:
    exact, usual, kept = block(), block(), block()
    nearest(usual, (*WEIGHTS, *BIASES))
    means = measure_channel_means(kept, [{"x": images(1)}], tmp_path)
    assert round_weights(kept, means, ()) == 3
    nearest(kept, BIASES)

    def shift(model: ir.Model) -> float:
        difference = outputs(model, images(2)) - outputs(exact, images(2))
        return float(np.abs(difference.mean((0, 2, 3))).mean())

    assert shift(kept) < shift(usual) / 4


def test_weights_are_neighbours_that_fp16_holds(tmp_path: Path) -> None:
    exact, kept = block(), block()
    round_weights(kept, measure_channel_means(kept, [{"x": images(1)}], tmp_path), ())
    for name in WEIGHTS:
        before, after = (model.graph.initializers[name].const_value.numpy() for model in (exact, kept))
        np.testing.assert_array_equal(after, after.astype(np.float16))
        half = before.astype(np.float16)
        away = np.nextafter(half, np.where(half > before, -np.inf, np.inf).astype(np.float16))
        assert ((after == half) | (after == away)).all()
        assert (after != half).any(), f"no weight of {name} was turned"


def test_what_stays_fp32_keeps_its_weights(tmp_path: Path) -> None:
    exact, kept = block(), block()
    means = measure_channel_means(kept, [{"x": images(1)}], tmp_path)
    assert round_weights(kept, means, {node for node in kept.graph if node.name == "depthwise"}) == 2
    for name, same in (("w1", False), ("w2", True), ("w3", False)):
        before, after = (model.graph.initializers[name].const_value.numpy() for model in (exact, kept))
        assert np.array_equal(before, after) == same


def test_inputs_that_were_shifted_are_made_good() -> None:
    """The FP16 graph's inputs have other means than the FP32 graph's; the output's mean stays all the same."""
    generator = np.random.default_rng(0)
    weights, inputs = generator.standard_normal((4, 200)), generator.uniform(1, 3, (1, 200))
    shifted, bias = inputs + 2e-5, np.array([0.5, -1.25, 3.0, 0.1])
    rounded, left = round_preserving_means(weights, inputs, shifted, bias)
    wanted = (weights * inputs).sum(1) + bias
    found = (rounded.astype(np.float64) * shifted).sum(1) + bias.astype(np.float16)
    np.testing.assert_allclose(found - wanted, left, atol=1e-12)
    assert (np.abs(left) < np.spacing(np.abs(wanted).astype(np.float16)) / 32).all()


def test_inputs_without_a_mean_leave_nothing_to_turn() -> None:
    weights = np.random.default_rng(0).standard_normal((4, 50))
    rounded, left = round_preserving_means(
        weights, np.zeros((1, 50)), np.zeros((1, 50)), np.array([0.1, 0.2, 0.3, 0.4])
    )
    np.testing.assert_array_equal(rounded, weights.astype(np.float16))
    assert left == pytest.approx(np.array([0.1, 0.2, 0.3, 0.4]).astype(np.float16) - np.array([0.1, 0.2, 0.3, 0.4]))
