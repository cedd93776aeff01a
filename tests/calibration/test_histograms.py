"""Histograms against NumPy, in slices and with outlier samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from align_calibration import histograms
from align_calibration.histograms import BINS, measure_histograms
from support.graphs import typed

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 4] x) => (float[n, 4] y)
<float[1] two = {2}>
{
  doubled = Mul (x, two)
  y = Neg (doubled)
}
"""
TENSORS = ["x", "doubled", "y"]


def samples(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 1, 4)).astype(np.float32)


def measure(rows: np.ndarray, folder: Path) -> dict[str, histograms.Histogram]:
    model = typed(GRAPH)
    before = ir.to_onnx_text(model)
    found = measure_histograms(model, TENSORS, [{"x": row} for row in rows], folder)
    assert ir.to_onnx_text(model) == before
    assert list(folder.iterdir()) == []
    return dict(found)


def test_counts_agree_with_numpy(tmp_path: Path) -> None:
    rows = samples(40)
    found = measure(rows, tmp_path)
    assert list(found) == TENSORS
    for name, factor in (("x", 1.0), ("doubled", 2.0), ("y", -2.0)):
        values, histogram = factor * rows.ravel(), found[name]
        assert (histogram.lowest, histogram.highest) == (values.min(), values.max())
        assert histogram.counts.sum() == values.size
        expected, _ = np.histogram(values, BINS, (histogram.lowest, histogram.highest))
        # A value on the border of two bins may fall to either side.
        assert np.abs(np.cumsum(histogram.counts) - np.cumsum(expected)).max() <= 1


def test_of_large_tensors_evenly_spread_values_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row and every channel has its share: values are those of a channel, plus noise."""
    monkeypatch.setattr(histograms, "COUNTED_OF_ONE", 1 << 10)
    channels, size = 16, 32
    text = GRAPH.replace("[n, 4]", f"[n, {channels}, {size}, {size}]")
    noise = np.random.default_rng(0).uniform(0, 0.9, (3, 1, channels, size, size))
    rows = (np.arange(channels).reshape(-1, 1, 1) + noise).astype(np.float32)
    found = measure_histograms(typed(text), TENSORS, [{"x": row} for row in rows], tmp_path)["x"]
    assert (found.lowest, found.highest) == (rows.min(), rows.max())  # of all values
    counted = int(found.counts.sum())
    assert 3 * 900 < counted < 3 * 1100
    shares, _ = np.histogram(found.centres, channels, (0, channels), weights=found.counts)
    assert np.abs(shares / counted - 1 / channels).max() < 0.2 / channels
    within, _ = np.histogram(found.centres % 1, 9, (0, 0.9), weights=found.counts)
    assert np.abs(within / counted - 1 / 9).max() < 0.2 / 9


def test_no_column_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are numbers of columns; a step that has a factor in common with their number sees some of them alone."""
    monkeypatch.setattr(histograms, "COUNTED", 64)
    width = 24
    text = GRAPH.replace("[n, 4]", f"[n, 32, {width}]")
    row = np.broadcast_to(np.arange(width, dtype=np.float32), (1, 32, width)).copy()
    found = measure_histograms(typed(text), TENSORS, [{"x": row}], tmp_path)["x"]
    assert np.count_nonzero(found.counts) == width


def test_symbolic_dimensions_have_the_sizes_of_each_sample(tmp_path: Path) -> None:
    """As in a text graph: some tensors have a row for each token, others one for the whole text."""
    text = GRAPH.replace("[n, 4]", "[n, tokens, 2]").replace("y = Neg (doubled)", "y = ReduceMax (doubled, axis)")
    text = text.replace("float[n, tokens, 2] y", "float[n, 1, 2] y").replace("<float", "<int64[1] axis = {1}, float")
    rows = [np.full((1, length, 2), length, dtype=np.float32) for length in (1, 5, 3)]
    found = measure_histograms(typed(text), TENSORS, [{"x": row} for row in rows], tmp_path)
    assert {name: histogram.counts.sum() for name, histogram in found.items()} == {"x": 18, "doubled": 18, "y": 6}
    assert found["x"].counts[[0, BINS // 2, -1]].tolist() == [2, 6, 10]
    assert found["y"].counts[[0, BINS // 2, -1]].tolist() == [2, 2, 2]


def test_one_outlier_among_many_is_counted_but_does_not_widen_the_range(tmp_path: Path) -> None:
    rows = samples(128)
    usual = measure(rows, tmp_path)["x"]
    rows[17] *= 1000
    found = measure(rows, tmp_path)["x"]
    assert (found.lowest, found.highest) == pytest.approx((usual.lowest, usual.highest), rel=0.3)
    assert found.counts.sum() == rows.size
    assert found.counts[0] + found.counts[-1] >= 4


def test_of_few_samples_none_is_an_outlier(tmp_path: Path) -> None:
    rows = samples(8)
    rows[3] *= 1000
    found = measure(rows, tmp_path)["x"]
    assert (found.lowest, found.highest) == (rows.min(), rows.max())


def test_a_constant_tensor_has_one_bin(tmp_path: Path) -> None:
    found = measure(np.full((3, 1, 4), 2.5, dtype=np.float32), tmp_path)["x"]
    assert (found.lowest, found.highest) == (2.5, 2.5)
    assert found.counts[0] == found.counts.sum() == 12


@pytest.mark.parametrize("size", [1e-30, 1e-36, 1e-37, 1e-42])
def test_tiny_values_are_counted(size: float, tmp_path: Path) -> None:
    rows = (samples(3) * size).astype(np.float32)
    found = measure(rows, tmp_path)["x"]
    assert (found.lowest, found.highest) == (rows.min(), rows.max())
    assert found.counts.sum() == rows.size


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_values_that_are_not_finite_are_an_error(value: float, tmp_path: Path) -> None:
    rows = samples(64)
    rows[9, 0, 1] = value
    with pytest.raises(ValueError, match="'x' .*NaN"):
        measure(rows, tmp_path)


def test_no_samples_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no calibration samples"):
        measure(samples(0), tmp_path)
