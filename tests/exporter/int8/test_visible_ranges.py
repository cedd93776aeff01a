"""Ranges by what readers see: of any activation the function that they compute, and a range without what it hides."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from align_calibration.histograms import BINS, Histogram
from align_calibration.observers import min_max, mse_after
from align_calibration.quant_params import INT8, UINT8
from align_exporter.int8.visible_ranges import Bounds, saturation, visible_through
from support.graphs import typed

Floats = NDArray[np.floating]
Function = Callable[[Floats], Floats]


def graph(lines: str, after: str = "y = Add (b, x)") -> ir.Graph:
    """`lines` compute b from a; what reads b is not a function of a alone."""
    text = f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[n, 4] x) => (float[n, 4] y)
    <float zero = {{0}}, float one = {{1}}, float three = {{3}}, float six = {{6}}, float[4] vector = {{1, 2, 3, 4}}>
    {{
      a = Neg (x)
      {lines}
      {after}
    }}
    """
    return typed(text).graph


def sigmoid(values: Floats) -> Floats:
    return 1 / (1 + np.exp(-values))


def hard_swish(values: Floats) -> Floats:
    return values * np.clip(values + 3, 0, 6) / 6


# Name, what computes b from a, the function, and the range of a that can be seen of −50 … 18.
ACTIVATIONS: list[tuple[str, str, Function, float, float]] = [
    ("relu", "b = Relu (a)", lambda x: np.maximum(x, 0), 0, 18),
    ("relu6", "b = Clip (a, zero, six)", lambda x: np.clip(x, 0, 6), 0, 6),
    ("relu6 of two", "r = Relu (a)\n b = Clip (r, zero, six)", lambda x: np.clip(x, 0, 6), 0, 6),
    ("hard swish", "b = HardSwish (a)", hard_swish, -3, 18),
    (
        "hard swish of four",
        "s = Add (a, three)\n c = Clip (s, zero, six)\n p = Mul (a, c)\n b = Div (p, six)",
        hard_swish,
        -3,
        18,
    ),
    ("gate", "b = Sigmoid (a)", sigmoid, -12.5, 18),
    ("swish", "s = Sigmoid (a)\n b = Mul (a, s)", lambda x: x * sigmoid(x), -12.5, 18),
]
EACH = pytest.mark.parametrize(
    ("name", "lines", "function", "low", "high"), ACTIVATIONS, ids=[row[0] for row in ACTIVATIONS]
)


@EACH
def test_the_function_that_readers_compute(name: str, lines: str, function: Function, low: float, high: float) -> None:
    found = visible_through(graph(lines))["a"]
    values = np.linspace(-50, 18, 1000).reshape(10, 100)
    np.testing.assert_allclose(found(values), function(values)[..., None], atol=1e-4)


@EACH
def test_no_integers_for_what_no_reader_sees(
    name: str, lines: str, function: Function, low: float, high: float
) -> None:
    counts = np.ones(BINS, dtype=np.int64)
    histogram = Histogram(-50.0, 18.0, counts, np.full(9, -50.0), np.full(9, 18.0))
    for spec in (UINT8, INT8):
        params = mse_after(visible_through(graph(lines))["a"])(histogram, spec)
        assert params.scale <= spec.fit(low, high).scale * 1.01, name
        assert params.scale < 0.5 * min_max(histogram, spec).scale


def test_every_reader_is_seen() -> None:
    """Both a gate and a ReLU6 read it: what either of them tells apart counts."""
    found = visible_through(graph("s = Sigmoid (a)\n c = Clip (a, zero, six)", "t = Add (s, x)\n y = Add (t, c)"))["a"]
    values = np.linspace(-9, 9, 50)
    np.testing.assert_allclose(found(values), np.stack([sigmoid(values), np.clip(values, 0, 6)], axis=-1), atol=1e-6)


@pytest.mark.parametrize(
    ("lines", "after"),
    [
        pytest.param("b = Clip (a, zero, six)", "y = Add (b, a)", id="a residual reads it"),
        pytest.param("b = Clip (a, zero, vector0)\n vector0 = Identity (six)", "y = Add (b, x)", id="computed bound"),
        pytest.param("b = Mul (a, vector)", "y = Add (b, x)", id="differs by channel"),
        pytest.param("b = Softmax (a)", "y = Add (b, x)", id="not value by value"),
    ],
)
def test_what_is_read_otherwise_is_seen_whole(lines: str, after: str) -> None:
    if "vector0" in lines:
        lines = "vector0 = Identity (six)\n b = Clip (a, zero, vector0)"
    if after == "y = Add (b, a)":
        after = "t = Add (b, x)\n y = Add (t, a)"
    assert "a" not in visible_through(graph(lines, after))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("b = Clip (a, zero, six)", Bounds(0, 6)),
        ("b = Clip (a, , six)", Bounds(-np.inf, 6)),
        ("b = Relu (a)", Bounds(0, np.inf)),
        ("t = Identity (six)\n b = Clip (a, zero, t)", None),
        ("b = Sigmoid (a)", None),
    ],
)
def test_bounds_of_saturating_operators(lines: str, expected: Bounds | None) -> None:
    (value,) = (value for node in graph(lines) for value in node.outputs if value.name == "b")
    assert saturation(value) == expected
