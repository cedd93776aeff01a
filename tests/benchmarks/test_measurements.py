"""Measurements on align-tiny with a handful of images: they run, and their records have what the page needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from align_calibration.observers import OBSERVERS
from align_exporter.int8.layer_outputs import WINDOWS
from benchmarks.measure_ablation import STEPS, STEPS_OF, quantize, without
from benchmarks.measure_calibration import calibrate
from benchmarks.sections.export import calibration_lines
from benchmarks.trained_draws import Draw
from support.checkpoints import crops

SIZE = 65  # of align-tiny's images


@pytest.fixture(scope="module")
def graph(tiny_bundle: Path) -> Path:
    return tiny_bundle / "onnx" / "vision_model.onnx"


def test_runs_of_the_calibration_are_counted(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", onnxruntime.InferenceSession)  # `calibrate` replaces it
    records = [calibrate(graph, count, False) for count in (1, 2)]
    once, twice = (record["runs"] for record in records)
    assert twice == 2 * once >= 4
    assert all(record["peak_bytes"] > record["cache_bytes"] > 0 for record in records)
    assert calibration_lines({"cases": records})


@pytest.mark.slow
def test_search_and_trials_are_counted_too(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", onnxruntime.InferenceSession)
    histograms, trials = (calibrate(graph, 1, trials) for trials in (False, True))
    both_ends = 2 * WINDOWS
    # The float graph, and one for each observer and for layer outputs.
    assert trials["runs"] == histograms["runs"] + both_ends + 1 + len(OBSERVERS) + 1


@pytest.mark.slow
def test_graphs_without_a_step_are_other_graphs(tiny_bundle: Path, tmp_path: Path) -> None:
    draw = Draw("align-tiny", 0, 2, tmp_path)
    (draw.folder / "bundle").symlink_to(tiny_bundle)
    pixels = np.stack([np.asarray(image) for image in crops(2, SIZE, 1)])
    np.savez(draw.folder / "vision.npz", pixels=pixels)
    left_out = ((), ("ranges by what readers see",), ("weights rounded together",))
    graphs = {quantize(draw, "vision", "cpu", steps).read_bytes() for steps in left_out}
    assert len(graphs) == len(left_out)


def test_every_step_is_left_out_of_some_graph() -> None:
    assert {step for steps in STEPS_OF.values() for step in steps} == set(STEPS)
    assert without("text", "cpu") == {
        "nothing": (),
        "weights rounded together": ("weights rounded together",),
        "outlier channels moved": ("outlier channels moved",),
        "all of these": ("weights rounded together", "outlier channels moved"),
    }
