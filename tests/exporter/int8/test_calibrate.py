"""The trial of observers on a few samples, layer outputs among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from align_calibration.histograms import Histogram
from align_calibration.observers import Observer, min_max
from align_calibration.quant_params import QuantParams, QuantSpec
from align_exporter.int8 import calibrate, prepare_weights
from align_exporter.int8.build import FOR_CPU, FOR_TENSORRT, LEAST_EXACT, shared_scales
from align_exporter.int8.calibrate import LAYER_OUTPUTS, ROUNDS, Choice, choose_scales
from align_exporter.int8.calibration_samples import Calibration
from align_runtime.progress import Progress
from support.graphs import typed

CHANNELS, SIZE = 4, 6
MIXED = np.random.default_rng(3).normal(size=(CHANNELS, CHANNELS)).round(4)
GRAPH = f"""
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, {CHANNELS}, {SIZE}, {SIZE}] x) => (float[n, {CHANNELS}] y)
<
  float[{CHANNELS}, {CHANNELS}, 1, 1] w = {{{", ".join(map(str, MIXED.ravel()))}}},
  float[{CHANNELS}] b = {{0, 0, 0, 0}}, int64[2] axes = {{2, 3}}
>
{{
  [first] f = Conv (x, w, b)
  r = Relu (f)
  [second] s = Conv (r, w, b)
  y = ReduceMean <keepdims = 0> (s, axes)
}}
"""


def coarse(histogram: Histogram, spec: QuantSpec) -> QuantParams:
    """A range a hundred times as wide as it has to be."""
    return spec.fit(100 * histogram.lowest, 100 * histogram.highest)


def samples(count: int) -> list[dict[str, np.ndarray]]:
    rows = np.random.default_rng(0).normal(size=(count, 1, CHANNELS, SIZE, SIZE))
    return [{"x": row.astype(np.float32)} for row in rows]


def chosen(observers: Mapping[str, Observer], count: int, folder: Path) -> Choice:
    model, method = typed(GRAPH), FOR_TENSORRT["vision"]
    calibration = Calibration(samples(count), folder, None, Progress(quiet=True))
    histograms = calibration.histograms(model, method.tensors(model.graph))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("align_exporter.int8.calibrate.OBSERVERS", observers)
        return choose_scales(model, method, histograms, calibration)


def test_what_is_clearly_worse_on_a_few_samples_is_not_tried_on_more(tmp_path: Path) -> None:
    (few, _), (more, _), _ = ROUNDS
    found = chosen({"coarse": coarse, "min-max": min_max}, 3 * more, tmp_path)
    tried = {trial.scheme: trial.samples for trial in found.trials}
    assert tried["coarse"] == few < tried[LAYER_OUTPUTS]
    assert found.trials[-1].scheme == "coarse"
    assert found.error == found.trials[0].error
    assert len(found.exact) == len(found.samples.samples) == found.trials[0].samples


def test_where_errors_are_alike_the_largest_round_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "scales_by_outputs", lambda *_: {})
    alike = {"min-max": min_max, "the same": min_max, "coarse": coarse}
    found = chosen(alike, 100, tmp_path)
    assert {trial.scheme: trial.samples for trial in found.trials} == {"min-max": 100, "the same": 100, "coarse": 8}


def test_one_that_is_left_is_not_tried_on_more_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "scales_by_outputs", lambda *_: {})
    found = chosen({"coarse": coarse, "min-max": min_max}, 96, tmp_path)
    assert [trial.samples for trial in found.trials] == [32, 8]


def outputs_with(factor: float) -> Callable[..., Mapping[str, QuantParams]]:
    """Stands in for `scales_by_outputs`: the scales of the start times `factor`."""
    return lambda model, start, *_: {
        name: replace(params, scale=factor * params.scale) for name, params in start.items()
    }


def test_what_is_behind_layer_outputs_is_not_tried_on_more_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is a little ahead of them is."""
    for factor, count in ((1.1, 32), (1.3, 96)):
        monkeypatch.setattr(calibrate, "scales_by_outputs", outputs_with(factor))
        found = chosen({"min-max": min_max, "coarse": coarse}, 96, tmp_path)
        assert {trial.scheme: trial.samples for trial in found.trials} == {
            LAYER_OUTPUTS: count,
            "min-max": count,
            "coarse": 8,
        }, factor


def test_of_the_observers_two_are_tried_on_the_most_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "scales_by_outputs", outputs_with(1.3))
    alike = {"min-max": min_max, "the same": min_max, "once more": min_max}
    found = chosen(alike, 96, tmp_path)
    tried = {trial.scheme: trial.samples for trial in found.trials}
    assert sorted(tried.values()) == [32, 96, 96, 96]
    assert tried[LAYER_OUTPUTS] == 96
    assert tried[found.trials[-1].scheme] == 32


def test_an_observer_has_to_be_notably_better_than_layer_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for factor, best in ((1.001, LAYER_OUTPUTS), (8.0, "min-max")):
        monkeypatch.setattr(calibrate, "scales_by_outputs", outputs_with(factor))
        found = chosen({"min-max": min_max, "coarse": coarse}, 32, tmp_path)
        assert found.trials[0].scheme == best
        assert found.error == found.trials[0].error


def test_where_nothing_is_behind_a_tensor_the_best_observer_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "scales_by_outputs", lambda *_: {})
    found = chosen({"coarse": coarse, "min-max": min_max}, 8, tmp_path)
    assert [trial.scheme for trial in found.trials] == ["min-max", "coarse"]
    assert found.trials[0].error < found.trials[1].error


def test_scales_are_those_of_the_best_observer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "scales_by_outputs", lambda *_: {})
    best = chosen({"coarse": coarse, "min-max": min_max}, 8, tmp_path)
    alone = chosen({"min-max": min_max}, 8, tmp_path)
    assert best.scales == alone.scales
    assert best.scales != chosen({"coarse": coarse}, 8, tmp_path).scales


# ── weights of both targets ──────────────────────────────────────────────────────────────────────────────────────────


def test_weights_with_the_same_inputs_and_scales_are_rounded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = list[str]()
    measure = prepare_weights.measure_moments

    def recorded(model, nodes, *others):  # type: ignore[no-untyped-def]
        measured.extend(node.name for node in nodes)
        return measure(model, nodes, *others)

    monkeypatch.setattr(prepare_weights, "measure_moments", recorded)
    calibration, known = Calibration(samples(8), tmp_path, None, Progress(quiet=True)), prepare_weights.RoundedLayers()
    of_cpu, of_tensorrt = (
        prepare_weights.prepare_weights(typed(GRAPH), method, calibration, known).weights
        for method in (FOR_CPU["vision"], FOR_TENSORRT["vision"])
    )
    assert measured == ["first", "second"]
    for name in measured:
        np.testing.assert_array_equal(of_cpu[name].weights, of_tensorrt[name].weights)
    alone = prepare_weights.prepare_weights(typed(GRAPH), FOR_TENSORRT["vision"], calibration).weights
    assert measured == ["first", "second"] * 2
    np.testing.assert_array_equal(alone["first"].weights, of_cpu["first"].weights)


def test_scales_that_fp16_holds_coarsely_stay_exact() -> None:
    scales = np.array([1e-9, 3.3e-6, 0.9 * LEAST_EXACT, 1.1 * LEAST_EXACT, 0.012345, 700, 1e5], np.float32)
    found = shared_scales(scales)
    np.testing.assert_array_equal(found[:3], scales[:3])
    np.testing.assert_array_equal(found[3:6], scales[3:6].astype(np.float16))
    np.testing.assert_allclose(found, scales, rtol=2**-11)
