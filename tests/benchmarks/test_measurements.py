"""Measurements on align-tiny with a handful of images: they run, and their records have what the page needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from align_calibration.observers import OBSERVERS
from benchmarks.measure_ablation import Measurement
from benchmarks.measure_calibration import calibrate
from benchmarks.sections.accuracy import ablation_lines
from benchmarks.sections.export import calibration_lines
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
def test_trials_of_the_observers_are_counted_too(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", onnxruntime.InferenceSession)
    histograms, trials = (calibrate(graph, 1, trials) for trials in (False, True))
    assert trials["runs"] == histograms["runs"] + 1 + len(OBSERVERS)  # the float graph, and one for each observer


@pytest.mark.slow
def test_every_recipe_of_the_ablation_has_figures(graph: Path, tmp_path: Path) -> None:
    images = [np.stack([np.asarray(image) for image in crops(4, SIZE, seed)]) for seed in (1, 2)]
    measurement = Measurement(graph, *images, tmp_path)
    recipes = dict(measurement.recipes())
    assert len(recipes) == 6
    assert recipes["weights only in INT8"]["error"] < recipes["min-max ranges"]["error"]
    assert all(0 < figures["error"] < 1 and figures["p5_cosine"] < 1 for figures in recipes.values())
    facts = {"calibration_images": 4, "held_out_images": 4, "seeds": [1]}
    draws = {name: [figures] for name, figures in recipes.items()}
    assert ablation_lines({"checkpoints": {"align-tiny": {**facts, "recipes": draws}}})
