"""What is measured on trained weights: cosines, how often images find the same caption, and held-out captions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.measure_trained import image_agreement, with_other_tools
from benchmarks.trained_captions import ODD, captions, held_out_captions
from benchmarks.trained_draws import fidelity


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_cosines_with_a_common_part_hide_what_the_rest_loses() -> None:
    random = np.random.default_rng(0)
    exact = unit(random.normal(size=(50, 16)) + 20 * np.eye(16)[0])
    assert fidelity(exact, exact) == pytest.approx(dict.fromkeys(fidelity(exact, exact), 1.0))
    turned = exact.copy()
    turned[7, 1:] *= -1  # one sample, all but the common part
    found = fidelity(turned, exact)
    assert found["min_cosine"] > 0.5
    assert found["min_centred"] < -0.5
    assert found["mean_cosine"] == pytest.approx((49 + found["min_cosine"]) / 50)
    assert found["mean_centred"] == pytest.approx((49 + found["min_centred"]) / 50)


@pytest.mark.parametrize(("tower", "share"), [("vision", 0.75), ("text", 0.5)])
def test_agreement_counts_images_whichever_tower_is_quantized(tower: str, share: float) -> None:
    exact = {"vision": np.eye(4), "text": np.eye(4)}
    actual = np.eye(4)
    if tower == "vision":
        actual[0] = actual[1]
    else:
        actual[[0, 1]] = actual[[1, 0]]  # two images find the other's caption
    assert image_agreement(tower, actual, exact) == share
    assert image_agreement(tower, exact[tower], exact) == 1


def test_held_out_captions_are_not_those_of_the_calibration() -> None:
    used = captions(200, seed=0)
    assert (len(used), used) == (200, captions(200, seed=0))
    assert used != captions(200, seed=1)
    held_out = held_out_captions(captions, used)
    assert tuple(held_out[: len(ODD)]) == ODD
    assert not set(used) & set(held_out)
    assert len(held_out) > 150


def test_records_of_other_tools_stay_until_they_are_measured_anew() -> None:
    def draw(*peers: str) -> dict[str, Any]:
        return {"graphs": [{"peer": peer} for peer in peers]}

    before = draw("align-onnx", "align-onnx for TensorRT", "onnxruntime", "nncf")
    assert with_other_tools(draw("align-onnx"), before, []) == draw("align-onnx", "onnxruntime", "nncf")
    assert with_other_tools(draw("align-onnx", "nncf"), before, ["nncf"]) == draw("align-onnx", "nncf", "onnxruntime")
    assert with_other_tools(draw("align-onnx"), {}, []) == draw("align-onnx")
