"""What is measured on align-tiny: stages, inputs, fresh processes, and the axes of scaling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from align_bench import scaling
from align_bench.measure import measure_start, time_case
from align_bench.plan import Plan
from align_bench.record import Case
from align_bench.scaling import FLAT_WITHIN, MemoryUse, measure_scaling
from align_bench.subject import TextMaker, make_images, opened
from align_bench.timing import Effort
from align_runtime import Bundle, BundleError, ConfigurationError
from align_runtime.backends.onnxruntime import OnnxRuntimeRunner
from align_runtime.errors import BackendUnavailableError
from align_runtime.images import decode
from align_runtime.progress import Progress


def test_a_device_that_copies_has_copy_stages(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"host to device": 0.5, "compute": 2.0, "device to host": 0.25}

    class Staged(OnnxRuntimeRunner):
        def run_staged(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], Mapping[str, float]]:
            return self.run(inputs), times

    case = Case("text", "fp32", "cpu", 1, "8", None, 1)
    with opened(Bundle.open(tiny_bundle), "fp32", "cpu", streams=1) as subject:
        monkeypatch.setattr(subject.tower("text")._whole, "__class__", Staged)
        timing = time_case(subject, case, Effort(7, 0.01))
    assert list(timing.stages) == ["tokenize", *times, "end to end"]
    assert timing.stages["host to device"] == (0.5,) * 7


def test_inputs_have_the_size_asked_for_and_are_the_same_every_time(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    with opened(bundle, "fp32", "cpu") as subject:
        for tokens in (2, 3, 12):
            texts = TextMaker(bundle).make(4, tokens)
            assert texts == TextMaker(bundle).make(4, tokens)
            assert {len(row) for row in subject.parts.texts.tokenizer.encode(texts)} == {tokens}
    images = make_images(2, 70, 50)
    assert images == make_images(2, 70, 50)
    assert {decode(image).size for image in images} == {(70, 50)}
    assert images[0] != images[1]
    bytes_per_pixel = len(make_images(1, 640, 480)[0]) / (640 * 480)
    assert 0.1 < bytes_per_pixel < 0.6  # like a photograph


def test_a_fresh_process_that_fails_gives_its_reason(bundle_copy: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="'int4'"):
        measure_start(bundle_copy, "int4", "cpu", None, None)


def test_a_fresh_process_measures_its_start(tiny_bundle: Path) -> None:
    start = measure_start(tiny_bundle, "fp32", "cpu", 1, 1)
    assert min(start.import_seconds, start.load_seconds, *start.first_seconds.values()) > 0
    assert set(start.first_seconds) == {"vision", "text"}
    assert 2**24 < start.peak_bytes < 2**33


def test_a_vocabulary_without_words_is_refused(bundle_copy: Path) -> None:
    bundle = Bundle.open(bundle_copy)
    (bundle_copy / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match="tokenizer.json"):
        TextMaker(bundle)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"towers": ("sound",)}, "'sound'"),
        ({"devices": ("tpu",)}, "'tpu'"),
        ({"starts": -1}, "starts"),
        ({"batches": (0,)}, "batches"),
        ({"load_seconds": float("inf")}, "load seconds"),
        ({"max_latency_ms": 0.0}, "maximum latency"),
        ({"clients": ()}, "open loops"),
    ],
)
def test_plans_are_checked(options: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        Plan(**options)  # type: ignore[arg-type]


def test_every_axis_of_scaling_is_measured(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "BATCHES", (1, 2))
    monkeypatch.setattr(scaling, "LENGTHS", (4, 8))
    monkeypatch.setattr(scaling, "IMAGE_SIZES", ("40x30", "80x60"))
    monkeypatch.setattr(scaling, "NUMBERS", {"vision": (1, 4), "text": (1, 40)})
    points = measure_scaling(Bundle.open(tiny_bundle), "fp32", "cpu", Effort(7, 0.01), Progress(quiet=True))
    axes = {(point.tower, point.axis) for point in points}
    assert axes == {
        ("vision", "image size"),
        ("text", "length"),
        *(
            (tower, axis)
            for tower in ("vision", "text")
            for axis in ("batch of the graph", "number of inputs", "threads")
        ),
    }
    assert all(point.milliseconds > 0 for point in points)


def test_memory_that_grows_is_not_flat() -> None:
    steps = np.arange(20)
    assert MemoryUse(10**6, tuple((10**8 + 10**5 * (steps % 3)).tolist()), 1.0).flat
    assert not MemoryUse(10**6, tuple((10**8 + steps * FLAT_WITHIN // 8).tolist()), 1.0).flat
