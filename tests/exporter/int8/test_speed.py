"""Whether INT8 is faster is measured by interleaved timing, against the fastest float graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from align_exporter.int8.speed import ROUNDS, SpeedComparison, caption_cases, check_faster, compare_speed, image_cases
from align_runtime import BuildError, golden
from align_runtime.bundle import Bundle


def made_up(case: str, **seconds: float) -> SpeedComparison:
    return SpeedComparison(case, {name: (value,) * ROUNDS for name, value in seconds.items()})


def test_the_baseline_is_the_fastest_float_graph() -> None:
    found = made_up("batch 1", fp32=3.0, fp16=2.0, int8=1.0)
    assert (found.baseline, found.speedup) == ("fp16", 2.0)


def test_one_slow_round_decides_nothing() -> None:
    seconds = [1.0] * ROUNDS
    seconds[3] = 100.0
    assert SpeedComparison("batch 1", {"fp32": (2.0,) * ROUNDS, "int8": tuple(seconds)}).speedup == 2.0


def test_a_faster_graph_is_accepted() -> None:
    check_faster("graph.onnx", [made_up("batch 1", fp32=2.0, int8=1.9), made_up("batch 8", fp32=2.0, int8=1.0)])


@pytest.mark.parametrize(("int8", "speedup"), [(2.0, "1.00"), (2.5, "0.80")])
def test_one_slower_case_is_enough(int8: float, speedup: str) -> None:
    comparisons = [
        made_up("batch 1", fp32=2.0, fp16=3.0, int8=1.0),
        made_up("batch 8", fp32=2.0, fp16=3.0, int8=int8),
    ]
    with pytest.raises(BuildError, match=f"{speedup} × as fast as fp32") as caught:
        check_faster("graph.onnx", comparisons)
    assert "batch 8" in str(caught.value)
    assert "batch 1" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_every_graph_is_timed_in_every_round(tiny_bundle: Path) -> None:
    answers = golden.read(Bundle.open(tiny_bundle))
    folder = tiny_bundle / "onnx"
    (captions,) = compare_speed(
        folder / "text_model_cpu.onnx", {"fp32": folder / "text_model.onnx"}, caption_cases(answers)
    )
    assert captions.case == "captions"
    assert {name: len(values) for name, values in captions.seconds.items()} == {"fp32": ROUNDS, "int8": ROUNDS}
    assert min(min(values) for values in captions.seconds.values()) > 0


def test_captions_are_sorted_and_padded_no_further_than_needed(tiny_bundle: Path) -> None:
    answers = golden.read(Bundle.open(tiny_bundle))
    (batches,) = caption_cases(answers).values()
    assert sum(len(batch["input_ids"]) for batch in batches) == len(answers.texts)
    lengths = [batch["attention_mask"].sum(axis=1) for batch in batches]
    assert (np.diff(np.concatenate(lengths)) >= 0).all()
    for batch, real in zip(batches, lengths, strict=True):
        assert batch["input_ids"].shape[1] == real.max()


def test_images_come_one_at_a_time_and_in_eights() -> None:
    cases = image_cases({"pixels": np.arange(3)})
    assert {case: batch["pixels"].tolist() for case, (batch,) in cases.items()} == {
        "batch 1": [0],
        "batch 8": [0, 1, 2, 0, 1, 2, 0, 1],
    }
