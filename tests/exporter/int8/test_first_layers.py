"""First layers stay float where the one tensor between them costs the embeddings most, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from align_calibration.observers import min_max
from align_calibration.quant_params import INT8
from align_exporter.int8.build import FOR_CPU, FOR_TENSORRT
from align_exporter.int8.calibrate import QuantizationMethod, choose_scales
from align_exporter.int8.calibration_samples import Calibration
from align_exporter.int8.first_layers import first_layers
from align_runtime.progress import Progress
from support.graphs import typed

# Weights without rounding errors in INT8: some that cancel each other, and some that do not.
EDGES, SMOOTH = "-1, 0, 1, -1, 0, 1, -1, 0, 1", "1, 1, 1, 1, 1, 1, 1, 1, 1"
STEM = f"1, {2 / 127}"
SIZE, CHANNELS = 12, 8


def numbers(text: str, count: int) -> str:
    return "{" + ", ".join([text] * count) + "}"


def graph(kernel: str, group: int = CHANNELS) -> str:
    """A stem, a depthwise convolution with `kernel`, two more convolutions, and the mean of the squares."""
    inputs = CHANNELS // group
    dense = np.random.default_rng(0).normal(size=(CHANNELS, CHANNELS)) + 8 * np.eye(CHANNELS)  # coarse in INT8
    mixed = "{" + ", ".join(f"{value:.4f}" for value in dense.ravel()) + "}"
    return f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[n, 2, {SIZE}, {SIZE}] x) => (float[n, {CHANNELS}] y)
    <
      float[{CHANNELS}, 2, 1, 1] weights = {numbers(STEM, CHANNELS)},
      float[{CHANNELS}, {inputs}, 3, 3] kernel = {numbers(kernel, CHANNELS * inputs)},
      float[{CHANNELS}, {CHANNELS}, 1, 1] mixed = {mixed}, float[{CHANNELS}] zeros = {numbers("0", CHANNELS)},
      int64[2] axes = {{2, 3}}
    >
    {{
      [stem] s = Conv (x, weights, zeros)
      [depthwise] d = Conv <group = {group}> (s, kernel, zeros)
      [square] q = Mul (d, d)
      [mix] m = Conv (q, mixed, zeros)
      [last] e = Conv (m, mixed, zeros)
      [mean] y = ReduceMean <keepdims = 0> (e, axes)
    }}
    """


def slopes(folder: Path) -> Calibration:
    """The same steep slope in all images, and a second channel, weak behind the stem, that distinguishes them."""
    random, (rows, columns) = np.random.default_rng(1), np.mgrid[0:SIZE, 0:SIZE] / SIZE
    images = [np.stack([100 * rows, random.uniform(50, 100) * columns]) for _ in range(8)]
    samples = [{"x": image[None].astype(np.float32)} for image in images]
    return Calibration(samples, folder, None, Progress(quiet=True))


def chosen(text: str, method: QuantizationMethod, folder: Path) -> tuple[str, ...]:
    model, calibration = typed(text), slopes(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("align_exporter.int8.calibrate.OBSERVERS", {"min-max": min_max})
        histograms = calibration.histograms(model, method.tensors(model.graph))
        choice = choose_scales(model, method, histograms, calibration)
    return first_layers(model, method, choice)


METHODS = pytest.mark.parametrize("method", [FOR_CPU["vision"], FOR_TENSORRT["vision"]], ids=["cpu", "tensorrt"])


@METHODS
def test_a_depthwise_convolution_that_looks_for_edges_stays_float(method: QuantizationMethod, tmp_path: Path) -> None:
    """For CPUs with the stem before it, whose integers it would read otherwise."""
    stem = () if method.spec == INT8 else ("stem",)
    assert chosen(graph(EDGES), method, tmp_path) == (*stem, "depthwise")


@METHODS
def test_one_that_smooths_is_quantized(method: QuantizationMethod, tmp_path: Path) -> None:
    assert chosen(graph(SMOOTH), method, tmp_path) == ()


@METHODS
def test_a_network_without_depthwise_convolutions_is_quantized(method: QuantizationMethod, tmp_path: Path) -> None:
    assert chosen(graph(EDGES, group=1), method, tmp_path) == ()
