"""What rounding a tensor costs the layers behind it: against the same computed with NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from align_calibration.output_errors import LOST, MAX_SIDE, measure_output_errors
from align_calibration.quant_params import INT8, UINT8, QuantParams, QuantSpec
from support.graphs import typed

CHANNELS = 4
KERNEL = np.random.default_rng(0).normal(size=(CHANNELS, 3, 3)).round(3)


def graph(size: int, stride: int = 1) -> str:
    return f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[1, {CHANNELS}, {size}, {size}] x, float[1, {CHANNELS}, 1, 1] gate) => (float[n, {CHANNELS}, h, w] y)
    <float[{CHANNELS}, 1, 3, 3] w = {{{", ".join(map(str, KERNEL.ravel()))}}}>
    {{
      f = Identity (x)
      s = Sigmoid (f)
      a = Mul (f, s)
      g = Mul (a, gate)
      y = Conv <group = {CHANNELS}, pads = [1, 1, 1, 1], strides = [{stride}, {stride}]> (g, w)
    }}
    """


def errors(
    size: int, scales: Sequence[QuantParams], spec: QuantSpec, samples: Sequence[NDArray[np.float32]], folder: Path
) -> NDArray[np.float64]:
    model = typed(graph(size))
    behind = {"f": [node for node in model.graph if node.op_type != "Identity"]}
    batches = [{"x": sample, "gate": np.full((1, CHANNELS, 1, 1), 0.5, np.float32)} for sample in samples]
    found = measure_output_errors(model, behind, {"f": scales}, spec, batches, folder)
    return np.stack([row["f"] for row in found])


def outputs(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """What `graph` computes of `x`."""
    gated = 0.5 * x / (1 + np.exp(-x))
    padded = np.pad(gated[0], ((0, 0), (1, 1), (1, 1)))
    size = x.shape[-1]
    return sum(KERNEL[:, i, j, None, None] * padded[:, i : i + size, j : j + size] for i in range(3) for j in range(3))


def sample(size: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(1, CHANNELS, size, size), scale=3).astype(np.float32)


@pytest.mark.parametrize("spec", [UINT8, INT8], ids=["uint8", "int8"])
def test_errors_are_those_of_the_rounded_tensor(spec: QuantSpec, tmp_path: Path) -> None:
    x = sample(MAX_SIDE)
    scales = [spec.fit(-4.0, high) for high in (9.0, 5.0, 90.0)]
    exact = outputs(x.astype(np.float64))
    expected = []
    for params in scales:
        integers = np.clip(np.rint(x / params.scale) + params.zero_point, spec.quant_min, spec.quant_max)
        rounded = outputs((integers - params.zero_point) * params.scale)
        expected.append(min(((rounded - exact) ** 2).mean() / (exact**2).mean(), LOST))
    assert errors(MAX_SIDE, scales, spec, [x], tmp_path)[0] == pytest.approx(expected, rel=1e-3)
    assert len(set(expected)) == len(scales)


def test_of_a_large_feature_map_a_window_is_taken_without_padding(tmp_path: Path) -> None:
    """A map of ones: its padding would count as an edge, and the rounding of 1 to 1 is no error anywhere."""
    ones = np.ones((1, CHANNELS, 64, 64), np.float32)
    exact, coarse = QuantParams(1.0, 0, "int8"), QuantParams(0.8, 0, "int8")
    found = errors(64, [exact, coarse], INT8, [ones], tmp_path)[0]
    inner = outputs(np.ones((1, CHANNELS, 9, 9)))[:, 4, 4], outputs(np.full((1, CHANNELS, 9, 9), 0.8))[:, 4, 4]
    expected = ((inner[0] - inner[1]) ** 2).mean() / (outputs(ones.astype(np.float64)) ** 2).mean()
    assert found == pytest.approx([0.0, expected], rel=1e-3)


def test_windows_are_at_other_places_in_other_samples_and_the_same_in_each_run(tmp_path: Path) -> None:
    x = sample(64)
    found = [errors(64, [INT8.fit(-9, 9)], INT8, [x, x, x], tmp_path).ravel() for _ in range(2)]
    assert len(set(found[0])) == 3
    assert found[0].tolist() == found[1].tolist()


def test_a_lost_sample_counts_as_lost(tmp_path: Path) -> None:
    x = sample(MAX_SIDE)
    found = errors(MAX_SIDE, [INT8.fit(-1e-3, 1e-3), INT8.fit(-9, 9)], INT8, [x, np.zeros_like(x)], tmp_path)
    assert found[0, 0] == LOST > found[0, 1] > 0
    assert found[1].tolist() == [0, 0]


def test_infinite_outputs_are_lost(tmp_path: Path) -> None:
    x = np.full((1, CHANNELS, MAX_SIDE, MAX_SIDE), 3e38, np.float32)
    assert errors(MAX_SIDE, [INT8.fit(-9, 9)], INT8, [x], tmp_path).tolist() == [[LOST]]


def test_without_samples(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no calibration samples"):
        list(errors(MAX_SIDE, [INT8.fit(-9, 9)], INT8, [], tmp_path))
