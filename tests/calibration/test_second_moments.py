"""Moments of what layers read, against the patches cut out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from align_calibration import second_moments
from align_calibration.second_moments import Moments, measure_moments
from support.graphs import typed

CONVOLUTION = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[1, {channels}, 7, 6] x) => (float[1, {out}, a, b] y)
<float[{out}, {per_group}, {height}, {width}] w = {{{weights}}}>
{{
  [layer] y = Conv <group = {group}, strides = [{stride}, {stride}], pads = [{pad}, {pad}, {pad}, {pad}]> (x, w)
}}
"""
DENSE = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[1, n, 3] x) => (float[1, n, 5] y)
<float[3, 5] w = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}>
{
  [layer] y = MatMul (x, w)
}
"""


def convolution(group: int, per_group: int, out: int, kernel: tuple[int, int], stride: int, pad: int) -> str:
    """One of 4 channels, group · per_group."""
    height, width = kernel
    weights = ", ".join(["1"] * (out * per_group * height * width))
    return CONVOLUTION.format(
        channels=group * per_group,
        out=out,
        per_group=per_group,
        height=height,
        width=width,
        group=group,
        stride=stride,
        pad=pad,
        weights=weights,
    )


def measured(text: str, samples: list[NDArray[np.float32]], folder: Path) -> Moments:
    graph = typed(text)
    (node,) = graph.graph
    ((found, moments),) = measure_moments(graph, [node], [{"x": sample} for sample in samples], folder)
    assert found is node
    return moments


def assert_moments(moments: Moments, patches: list[NDArray[np.float32]]) -> None:
    """`patches` of each sample: (groups, positions, inputs)."""
    means = np.mean([rows.mean(axis=1) for rows in patches], axis=0)
    seconds = [np.einsum("gpi,gpj->gij", rows, rows) / rows.shape[1] for rows in patches]
    np.testing.assert_allclose(moments.mean, means, atol=1e-5)
    covariance = np.mean(seconds, axis=0) - np.einsum("gi,gj->gij", means, means)
    assert moments.covariance is not None
    np.testing.assert_allclose(moments.covariance, covariance, atol=1e-4)


@pytest.mark.parametrize(
    ("group", "per_group", "out", "kernel", "stride", "pad"),
    [
        pytest.param(1, 4, 2, (1, 1), 1, 0, id="pointwise"),
        pytest.param(1, 4, 2, (1, 1), 2, 0, id="pointwise, strided"),
        pytest.param(1, 4, 3, (3, 2), 2, 1, id="padded"),
        pytest.param(4, 1, 4, (3, 3), 1, 1, id="depthwise"),
        pytest.param(2, 2, 6, (1, 1), 1, 0, id="grouped"),
    ],
)
def test_a_convolution_reads_patches_of_its_group(
    group: int, per_group: int, out: int, kernel: tuple[int, int], stride: int, pad: int, tmp_path: Path
) -> None:
    height, width = kernel
    text = convolution(group, per_group, out, kernel, stride, pad)
    samples = list(np.random.default_rng(0).normal(1, 2, (3, 1, 4, 7, 6)).astype(np.float32))
    patches = []
    for sample in samples:
        padded = np.pad(sample[0], ((0, 0), (pad, pad), (pad, pad)))
        rows = [
            padded[:, top : top + height, left : left + width].reshape(group, -1)
            for top in range(0, padded.shape[1] - height + 1, stride)
            for left in range(0, padded.shape[2] - width + 1, stride)
        ]
        patches.append(np.stack(rows, axis=1))
    assert_moments(measured(text, samples, tmp_path), patches)


def test_each_token_is_a_patch_and_each_text_counts_alike(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    samples = [random.normal(1, 2, (1, tokens, 3)).astype(np.float32) for tokens in (2, 9)]
    assert_moments(measured(DENSE, samples, tmp_path), samples)


def test_positions_of_a_large_feature_map_are_a_grid_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_moments, "POSITIONS", 12)  # of 42: every second row and column
    text = convolution(1, 4, 2, (1, 1), stride=1, pad=0)
    sample = np.random.default_rng(0).normal(size=(1, 4, 7, 6)).astype(np.float32)
    grid = sample[:, :, ::2, ::2].reshape(1, 4, -1).swapaxes(1, 2)
    assert_moments(measured(text, [sample], tmp_path), [grid])


def test_layers_are_measured_in_runs_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[1, n, 3] x) => (float[1, n, 3] y)
    <float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}>
    {
      [first] a = MatMul (x, w)
      [second] y = MatMul (a, w)
    }
    """
    graph = typed(text)
    sample = {"x": np.random.default_rng(0).normal(size=(1, 4, 3)).astype(np.float32)}
    together = list(measure_moments(graph, list(graph.graph), [sample], tmp_path))
    monkeypatch.setattr(second_moments, "SLICE_ELEMENTS", 1)
    one_by_one = list(measure_moments(graph, list(graph.graph), [sample], tmp_path))
    assert [node.name for node, _ in one_by_one] == ["first", "second"]
    for (_, expected), (_, actual) in zip(together, one_by_one, strict=True):
        np.testing.assert_array_equal(actual.mean, expected.mean)
        assert actual.covariance is not None
        assert expected.covariance is not None
        np.testing.assert_array_equal(actual.covariance, expected.covariance)


@pytest.mark.parametrize(("count", "enough"), [(1, False), (2, True)])
def test_a_layer_that_sees_few_positions_has_no_covariance(count: int, enough: bool, tmp_path: Path) -> None:
    """One position of each image, and 16 inputs, of which an eighth has to be seen."""
    text = convolution(1, 16, 2, (1, 1), stride=1, pad=0).replace("7, 6]", "1, 1]").replace("a, b]", "1, 1]")
    samples = list(np.random.default_rng(0).normal(size=(count, 1, 16, 1, 1)).astype(np.float32))
    found = measured(text, samples, tmp_path)
    assert (found.covariance is not None) == enough
    np.testing.assert_allclose(found.mean[0], np.mean(samples, axis=0).ravel(), atol=1e-6)


def test_no_samples_are_an_error(tmp_path: Path) -> None:
    graph = typed(DENSE)
    with pytest.raises(ValueError, match="no calibration samples"):
        next(measure_moments(graph, list(graph.graph), [], tmp_path))
