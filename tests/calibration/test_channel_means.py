"""Channel means against NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from align_calibration.channel_means import measure_channel_means
from support.graphs import typed

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 3, 4, 5] x) => (float[n, 3] y)
{
  half = Mul (x, x)
  pooled = GlobalAveragePool (half)
  y = Flatten (pooled)
}
"""


def test_all_samples_have_the_same_weight(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((7, 3, 4, 5)).astype(np.float32)
    model = typed(GRAPH)
    means = measure_channel_means(model, iter([{"x": x[:2]}, {"x": x[2:]}]), tmp_path)
    assert list(means) == ["x", "half", "pooled"]  # y is not a feature map
    np.testing.assert_allclose(means["x"], x.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(means["half"], (x**2).mean((0, 2, 3)), atol=1e-6)
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert list(tmp_path.iterdir()) == []


def test_no_samples_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no calibration samples"):
        measure_channel_means(typed(GRAPH), [], tmp_path)
