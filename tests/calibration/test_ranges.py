"""Activation ranges and FP16 rounding errors against NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from align_calibration.ranges import TensorRange, measure_ranges
from support.graphs import typed

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 3] x, int64[n] i) => (float[n, 3] y)
<float[3] w = {1000, 1, 0.00000001}, float[5, 3] table = {0,0,0, 1,2,3, 4,5,6, 7,8,9, -70000,0,0}>
{
  scaled = Mul (x, w)
  rows = Gather (table, i)
  y = Add (scaled, rows)
}
"""
SCALE = np.array([1000, 1, 1e-8], dtype=np.float32)

SMALL = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 4] x) => (float[n, 4] y)
{
  y = Neg (x)
}
"""


def measure(folder: Path, *batches: tuple[np.ndarray, list[int]]) -> dict[str, TensorRange]:
    model = typed(GRAPH)
    before = ir.to_onnx_text(model)
    feeds = [{"x": x.astype(np.float32), "i": np.array(i)} for x, i in batches]
    ranges = measure_ranges(model, feeds, folder)
    assert ir.to_onnx_text(model) == before
    assert list(folder.iterdir()) == []
    return {entry.tensor: entry for entry in ranges}


def test_statistics_of_all_batches_agree_with_numpy(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    first, second = (generator.standard_normal((rows, 3)).astype(np.float32) for rows in (2, 5))
    ranges = measure(tmp_path, (first, [0, 1]), (second, [2, 3, 3, 1, 0]))
    assert list(ranges) == ["x", "scaled", "rows", "y"]
    assert [entry.operator for entry in ranges.values()] == ["input", "Mul", "Gather", "Add"]
    scaled = np.concatenate([first, second]) * SCALE
    rounded = scaled.astype(np.float16).astype(np.float32)
    found = ranges["scaled"]
    assert found.max_abs == np.abs(scaled).max()
    assert found.rms == pytest.approx(np.sqrt((scaled**2).mean()), rel=1e-5)
    assert found.rounding_error == pytest.approx(np.linalg.norm(scaled - rounded) / np.linalg.norm(scaled), rel=1e-3)
    assert ranges["rows"].max_abs == 9
    assert ranges["rows"].rounding_error == 0  # small integers


def test_overflow_is_an_infinite_error(tmp_path: Path) -> None:
    ranges = measure(tmp_path, (np.zeros((1, 3)), [4]))
    assert ranges["rows"].max_abs == 70000
    assert ranges["rows"].rounding_error == np.inf
    assert ranges["scaled"].rounding_error == 0  # nothing but zeros


def test_underflow_shows_in_the_error(tmp_path: Path) -> None:
    """1e-8 is a sixth of the smallest FP16 subnormal: it is rounded to 0."""
    ranges = measure(tmp_path, (np.array([[0, 0, 1]]), [0]))
    assert ranges["scaled"].rounding_error == pytest.approx(1)
    assert ranges["x"].rounding_error == 0


def test_no_samples_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no calibration samples"):
        measure(tmp_path)


def test_what_other_samples_reach_counts_for_overflow(tmp_path: Path) -> None:
    feeds = [{"x": np.ones((1, 4), np.float32)}]
    model = typed(SMALL)
    found = {entry.tensor: entry for entry in measure_ranges(model, feeds, tmp_path, {"x": 0.5, "y": 1e5})}
    assert (found["x"].max_abs, found["y"].max_abs) == (1.0, 1e5)
    assert found["x"].rounding_error == 0
    assert np.isinf(found["y"].rounding_error)
