"""Scales by what the layers behind a tensor make of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from align_calibration.quant_params import INT8, UINT8, QuantSpec
from align_exporter.graph.ir_helpers import name_of
from align_exporter.int8.calibration_samples import Calibration
from align_exporter.int8.layer_outputs import layers_behind, scales_by_outputs
from align_runtime.progress import Progress
from support.graphs import typed

SIZE, LOUD = 12, 100.0
EDGES = ", ".join(["0.1"] * 9 + ["0.00001"] * 9)
# Of two channels the second is a hundred times as large, and the convolution that reads both hardly sees it.
GRAPH = f"""
<ir_version: 10, opset_import: ["" : 20]>
g (float[1, 2, {SIZE}, {SIZE}] x) => (float[1, 1, 1, 1] z)
<
  float[2, 2, 1, 1] stem = {{1, 0, 0, {LOUD}}}, float[2, 1, 3, 3] edges = {{{EDGES}}},
  float[1, 2, 1, 1] last = {{1, 1}}, float[2, 2, 1, 1] excite = {{1, 0, 0, 1}}
>
{{
  [first] f = Conv (x, stem)
  s = Sigmoid (f)
  a = Mul (f, s)
  [depthwise] d = Conv <group = 2, pads = [1, 1, 1, 1]> (a, edges)
  p = GlobalAveragePool (d)
  [reduce] q = Conv (p, excite)
  e = Sigmoid (q)
  m = Mul (d, e)
  [project] y = Conv (m, last)
  z = GlobalAveragePool (y)
}}
"""


def operators(name: str) -> list[str]:
    model = typed(GRAPH)
    value = next(value for node in model.graph for value in node.outputs if name_of(value) == name)
    return [node.name or node.op_type for node in layers_behind(value, model.graph)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("f", ["Sigmoid", "Mul", "depthwise", "Mul", "project"]),
        ("a", ["depthwise", "Mul", "project"]),
        ("s", []),  # the product with what the sigmoid is of needs both
        ("d", ["Mul", "project"]),  # not what the gates are computed of
        ("e", []),
        ("p", ["reduce"]),  # and no product: its other factor is no gate
        ("y", []),
    ],
)
def test_what_is_behind_a_tensor(name: str, expected: list[str]) -> None:
    assert operators(name) == expected


def calibration(folder: Path, count: int = 8) -> Calibration:
    rows = np.random.default_rng(2).normal(size=(count, 1, 2, SIZE, SIZE))
    return Calibration([{"x": row.astype(np.float32)} for row in rows], folder, None, Progress(quiet=True))


@pytest.mark.parametrize("spec", [UINT8, INT8], ids=["uint8", "int8"])
def test_a_channel_that_is_hardly_read_is_clipped(spec: QuantSpec, tmp_path: Path) -> None:
    model, samples = typed(GRAPH), calibration(tmp_path)
    histograms = samples.histograms(model, ["f", "y"])
    start = {name: spec.fit(found.lowest, found.highest) for name, found in histograms.items()}
    found = scales_by_outputs(model, start, spec, histograms, samples)
    assert list(found) == ["f"]
    assert spec.ends(found["f"])[1] < 0.2 * histograms["f"].highest
    assert found["f"].scale < 0.2 * start["f"].scale


def test_a_channel_that_is_read_is_not(tmp_path: Path) -> None:
    model, samples = typed(GRAPH.replace("0.00001", "0.1")), calibration(tmp_path)
    histograms = samples.histograms(model, ["f"])
    start = {"f": INT8.fit(histograms["f"].lowest, histograms["f"].highest)}
    found = scales_by_outputs(model, start, INT8, histograms, samples)
    assert found["f"].scale > 0.6 * start["f"].scale


def test_a_lower_end_near_zero_stays(tmp_path: Path) -> None:
    """What a swish gives starts at −0.28 however large it becomes."""
    model, samples = typed(GRAPH), calibration(tmp_path)
    histograms = samples.histograms(model, ["a"])
    start = {"a": UINT8.fit(histograms["a"].lowest, histograms["a"].highest)}
    found = scales_by_outputs(model, start, UINT8, histograms, samples)
    assert UINT8.ends(found["a"])[0] == pytest.approx(histograms["a"].lowest, abs=found["a"].scale)


def test_the_model_is_left_as_it_is(tmp_path: Path) -> None:
    model, samples = typed(GRAPH), calibration(tmp_path)
    nodes, inputs = len(list(model.graph)), len(model.graph.inputs)
    histograms = samples.histograms(model, ["f"])
    scales_by_outputs(model, {"f": INT8.fit(-1, 1)}, INT8, histograms, samples)
    assert (len(list(model.graph)), len(model.graph.inputs)) == (nodes, inputs)
