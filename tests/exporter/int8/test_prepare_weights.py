"""Which outlier migration is used is judged on samples that it was not fitted to; weights that stay float are exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from align_exporter.int8.build import FOR_CPU, FOR_TENSORRT
from align_exporter.int8.calibrate import QuantizationMethod
from align_exporter.int8.calibration_samples import Calibration
from align_exporter.int8.migrate_outliers import MIGRATIONS
from align_exporter.int8.prepare_weights import Prepared, prepare_weights
from align_runtime.progress import Progress
from support.graphs import constants, run_graph, typed

WIDTH, TOKENS = 32, 12
METHODS = pytest.mark.parametrize("method", [FOR_CPU["text"], FOR_TENSORRT["text"]], ids=["cpu", "tensorrt"])


def numbers(values: np.ndarray) -> str:
    return "{" + ", ".join(f"{value:.5f}" for value in values.ravel()) + "}"


def network(gamma: np.ndarray, beta: np.ndarray) -> ir.Model:
    """A layer norm, two dense layers that read it, and the mean over tokens."""
    random = np.random.default_rng(0)
    text = f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[1, n, {WIDTH}] x) => (float[1, {WIDTH}] y)
    <
      float[{WIDTH}] gamma = {numbers(gamma)}, float[{WIDTH}] beta = {numbers(beta)},
      float[{WIDTH}, {WIDTH}] first_w = {numbers(random.normal(size=(WIDTH, WIDTH)))},
      float[{WIDTH}, {WIDTH}] second_w = {numbers(random.normal(size=(WIDTH, WIDTH)))},
      float[{WIDTH}] b = {numbers(random.normal(size=WIDTH))}, int64[1] axes = {{1}}
    >
    {{
      normed = LayerNormalization (x, gamma, beta)
      [first] f = MatMul (normed, first_w)
      fb = Add (f, b)
      [second] s = MatMul (normed, second_w)
      sb = Add (s, b)
      sum = Add (fb, sb)
      y = ReduceMean <keepdims = 0> (sum, axes)
    }}
    """
    return typed(text)


def prepared(model: ir.Model, method: QuantizationMethod, inputs: np.ndarray, folder: Path) -> Prepared:
    """Prepares `model` with `inputs` (samples, tokens, width)."""
    samples = [{"x": rows[None].astype(np.float32)} for rows in inputs]
    return prepare_weights(model, method, Calibration(samples, folder, None, Progress(quiet=True)))


def outliers() -> ir.Model:
    """Channel 3 is forty times as large as the others, on every input, and on one side of 0."""
    gamma, beta = np.ones(WIDTH), np.zeros(WIDTH)
    gamma[3], beta[3] = 20, 40
    return network(gamma, beta)


@METHODS
def test_outliers_of_every_input_are_migrated(method: QuantizationMethod, tmp_path: Path) -> None:
    inputs = np.random.default_rng(1).normal(size=(40, TOKENS, WIDTH))
    model, exact = outliers(), outliers()
    found = prepared(model, method, inputs, tmp_path).migration
    assert found in {"scaled behind norms"} if method is FOR_CPU["text"] else MIGRATIONS[found].behind_norms
    feed = {"x": inputs[:1].astype(np.float32)}
    np.testing.assert_allclose(run_graph(model, feed)[0], run_graph(exact, feed)[0], atol=1e-3)


@METHODS
def test_what_only_some_inputs_have_is_not_migrated(method: QuantizationMethod, tmp_path: Path) -> None:
    """Each sample has an outlier channel of its own. What suits those of one half is wrong for those of the other."""
    inputs = 0.02 * np.random.default_rng(2).normal(size=(6, TOKENS, WIDTH))
    for index, sample in enumerate(inputs):
        sample[:, index * 5] += np.linspace(3, 4, TOKENS)
    model, exact = (network(np.ones(WIDTH), np.zeros(WIDTH)) for _ in range(2))
    assert prepared(model, method, inputs, tmp_path).migration == "none"
    assert [node.op_type for node in model.graph] == [node.op_type for node in exact.graph]
    np.testing.assert_array_equal(constants(model)["first_w"], constants(exact)["first_w"])


@METHODS
def test_one_sample_judges_nothing(method: QuantizationMethod, tmp_path: Path) -> None:
    inputs = np.random.default_rng(1).normal(size=(1, TOKENS, WIDTH))
    assert prepared(outliers(), method, inputs, tmp_path).migration == "none"


def test_layers_that_stay_float_keep_their_weights(tmp_path: Path) -> None:
    model = outliers()
    found = prepared(model, FOR_TENSORRT["text"], np.random.default_rng(1).normal(size=(8, TOKENS, WIDTH)), tmp_path)
    assert set(found.weights) == {"first", "second"}
    before = constants(model)
    read = {node.name: (node.inputs[0].name or "") for node in model.graph if node.inputs[0] is not None}
    scales = {read["first"]: FOR_TENSORRT["text"].spec.fit(-9, 9)}
    copy = found.method.applied(model, scales, ["second"])
    after = constants(copy)
    np.testing.assert_array_equal(after["second_w"], before["second_w"])
    assert after["first/weight/quantized"].dtype == np.int8
