"""Ranges of channels over samples of different lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from align_calibration.channel_ranges import ChannelRange, measure_channel_ranges, merged
from support.graphs import typed

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[1, n, 3] x) => (float[1, n, 2] y)
<float[3] addend = {1, 2, 3}, float[3, 2] w = {1, 0, 0, 1, 1, 1}>
{
  moved = Add (x, addend)
  y = MatMul (moved, w)
}
"""


def test_each_channel_has_its_extremes_over_all_samples(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    samples = [random.normal(size=(1, count, 3)).astype(np.float32) for count in (1, 7, 3)]
    found = measure_channel_ranges(typed(GRAPH), ["moved", "y"], [{"x": sample} for sample in samples], tmp_path)
    rows = np.concatenate(samples, axis=1)[0] + np.array([1, 2, 3], dtype=np.float32)
    products = rows @ np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float32)
    assert list(found) == ["moved", "y"]
    for name, expected in (("moved", rows), ("y", products)):
        np.testing.assert_allclose(found[name].lowest, expected.min(axis=0), atol=1e-6)
        np.testing.assert_allclose(found[name].highest, expected.max(axis=0), atol=1e-6)


def test_no_samples_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no calibration samples"):
        measure_channel_ranges(typed(GRAPH), ["moved"], [], tmp_path)


def test_ranges_of_parts_are_merged(tmp_path: Path) -> None:
    samples = [{"x": np.random.default_rng(seed).normal(size=(1, 3, 3)).astype(np.float32)} for seed in range(4)]
    model, names = typed(GRAPH), ["moved", "y"]
    whole, *halves = (
        measure_channel_ranges(model, names, part, tmp_path) for part in (samples, samples[::2], samples[1::2])
    )
    found = merged(*halves)
    assert found.keys() == whole.keys()
    for name, ends in found.items():
        assert isinstance(ends, ChannelRange)
        np.testing.assert_array_equal(ends, whole[name])
