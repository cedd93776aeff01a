"""Channels shifted and scaled before dense layers: the same outputs in float, and activations that suit one scale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from align_calibration.channel_ranges import ChannelRange, measure_channel_ranges
from align_exporter.graph.ir_helpers import name_of, operand
from align_exporter.int8.cpu_text import dense_nodes
from align_exporter.int8.migrate_outliers import MIGRATIONS, migrate_outliers
from support.graphs import constants, run_graph, typed

WIDTH, OUTLIER = 8, 5


def numbers(shape: tuple[int, ...], seed: int) -> str:
    """Random values; those for the outlier channel are small, so that what is computed from it is not."""
    values = np.random.default_rng(seed).normal(size=shape)
    if len(shape) == 2:
        values[OUTLIER] *= 0.02
    values = values.ravel()
    return "{" + ", ".join(f"{value:.6f}" for value in values) + "}"


# A layer norm whose channel 5 is an outlier, read by two layers; a GELU behind one of them, read by a third.
GRAPH = f"""
<ir_version: 10, opset_import: ["" : 20]>
g (float[1, n, {WIDTH}] x) => (float[1, n, {WIDTH}] y)
<
  float[{WIDTH}] gamma = {{1, 1, 1, 1, 1, 3, 1, 1}},
  float[{WIDTH}] beta = {{0, 0.1, 0, 0, 0, 40, 0, 0}},
  float[{WIDTH}, {WIDTH}] up_w = {numbers((WIDTH, WIDTH), 0)},
  float[{WIDTH}] up_b = {numbers((WIDTH,), 1)},
  float[{WIDTH}, {WIDTH}] side_w = {numbers((WIDTH, WIDTH), 2)},
  float[{WIDTH}] side_b = {numbers((WIDTH,), 3)},
  float[{WIDTH}, {WIDTH}] down_w = {numbers((WIDTH, WIDTH), 4)},
  float[{WIDTH}] down_b = {numbers((WIDTH,), 5)}
>
{{
  normed = LayerNormalization (x, gamma, beta)
  [up] u = MatMul (normed, up_w)
  ub = Add (u, up_b)
  active = Gelu (ub)
  [side] s = MatMul (normed, side_w)
  sb = Add (s, side_b)
  [down] d = MatMul (active, down_w)
  db = Add (d, down_b)
  inner = Add (db, sb)
  y = Add (inner, normed)
}}
"""


def samples() -> list[Mapping[str, NDArray[np.float32]]]:
    random = np.random.default_rng(6)
    return [{"x": random.normal(size=(1, 40, WIDTH)).astype(np.float32)} for _ in range(4)]


def read_by(model: ir.Model) -> dict[str, str]:
    return {name_of(node): name_of(operand(node, 0)) for node in dense_nodes(model.graph)}


def ranges_of(model: ir.Model, folder: Path) -> Mapping[str, ChannelRange]:
    return measure_channel_ranges(model, list(dict.fromkeys(read_by(model).values())), samples(), folder)


def migrated(model: ir.Model, folder: Path, name: str) -> None:
    migrate_outliers(model.graph, dense_nodes(model.graph), ranges_of(model, folder), MIGRATIONS[name])


@pytest.mark.parametrize("name", sorted({*MIGRATIONS} - {"none"}))
def test_the_outputs_stay(tmp_path: Path, name: str) -> None:
    model, exact = typed(GRAPH), typed(GRAPH)
    migrated(model, tmp_path, name)
    assert read_by(model) != read_by(exact)
    for feed in samples():
        (expected,), (actual,) = run_graph(exact, feed), run_graph(model, feed)
        np.testing.assert_allclose(actual, expected, atol=2e-4)


def test_shifted_channels_have_0_in_the_middle(tmp_path: Path) -> None:
    model = typed(GRAPH)
    migrated(model, tmp_path, "shifted and scaled")
    for lowest, highest in ranges_of(model, tmp_path).values():
        np.testing.assert_allclose(lowest, -highest, rtol=0.01)


def spread(found: ChannelRange) -> float:
    sizes = np.maximum(np.abs(found.lowest), np.abs(found.highest))
    return float(sizes.max() / sizes.min())


@pytest.mark.parametrize(
    ("name", "norm", "gelu"),
    [("scaled behind norms", 2.0, 1.0), ("shifted", 2.0, 1.0), ("shifted and scaled", 2.0, 0.9)],
)
def test_channels_get_alike(tmp_path: Path, name: str, norm: float, gelu: float) -> None:
    """Below `norm` behind the layer norm, and at most `gelu` of what it was behind GELU."""
    model = typed(GRAPH)
    before = ranges_of(model, tmp_path)
    migrated(model, tmp_path, name)
    after, read = ranges_of(model, tmp_path), read_by(model)
    assert spread(before["normed"]) > 10
    assert spread(after[read["up"]]) < norm
    assert read["up"] == read["side"]
    assert spread(after[read["down"]]) <= gelu * spread(before["active"])
    assert (read["down"] == "active") == (name == "scaled behind norms")


def test_small_channels_behind_gelu_are_not_made_larger(tmp_path: Path) -> None:
    """Another text may have what is small on the calibration texts."""
    model = typed(GRAPH)
    ranges = ranges_of(model, tmp_path)
    sizes = np.array([1e-4, 1e-3, 1.0, 1.0, 1.0, 2.0, 3.0, 40.0], np.float32)
    ranges = {**ranges, "active": ChannelRange(-sizes, sizes)}
    migrate_outliers(model.graph, dense_nodes(model.graph), ranges, MIGRATIONS["shifted and scaled"])
    factors = 1 / constants(model)["active/migration"]
    np.testing.assert_allclose(factors[:5], factors[2], rtol=1e-3)
    assert (np.diff(factors[4:]) > 0).all()


def test_none_changes_nothing(tmp_path: Path) -> None:
    model = typed(GRAPH)
    migrated(model, tmp_path, "none")
    assert [name_of(node) for node in model.graph] == [name_of(node) for node in typed(GRAPH).graph]
    for name, values in constants(typed(GRAPH)).items():
        np.testing.assert_array_equal(constants(model)[name], values)


def test_a_product_without_a_bias_is_not_shifted(tmp_path: Path) -> None:
    model = typed(GRAPH.replace("sb = Add (s, side_b)", "sb = Neg (s)"))
    migrated(model, tmp_path, "shifted and scaled")
    assert "normed/shift" not in constants(model)
    assert "active/shift" in constants(model)


def test_channels_and_weights_of_zeros_stay(tmp_path: Path) -> None:
    model = typed(GRAPH)
    for name in ("up_w", "side_w"):
        values = model.graph.initializers[name].const_value.numpy().copy()
        values[2] = 0
        model.graph.initializers[name].const_value = ir.tensor(values, name=name)
    for name in ("gamma", "beta"):
        values = model.graph.initializers[name].const_value.numpy().copy()
        values[3] = 0
        model.graph.initializers[name].const_value = ir.tensor(values, name=name)
    migrated(model, tmp_path, "shifted and scaled")
    assert all(np.isfinite(values).all() for values in constants(model).values())
    assert all(np.isfinite(run_graph(model, feed)[0]).all() for feed in samples())


def test_fp16_holds_shifts_and_factors(tmp_path: Path) -> None:
    """The graph for TensorRT stores them so; the compensation is for what is stored."""
    model = typed(GRAPH)
    migrated(model, tmp_path, "shifted and scaled")
    stored = [values for name, values in constants(model).items() if name.endswith(("/shift", "/migration"))]
    assert len(stored) == 4
    for values in stored:
        np.testing.assert_array_equal(values, values.astype(np.float16))
