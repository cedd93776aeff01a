"""Runs that are alone take all cores, runs beside others one each; and how long threads spin between operators."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import align_runtime
from align_runtime.backends import onnxruntime as backend
from align_runtime.backends.onnxruntime import OnnxRuntimeRunner
from align_runtime.bundle import Bundle
from align_runtime.onnxruntime_import import import_onnxruntime
from align_runtime.runs import Runs
from align_runtime.tower import Tower

PIXELS = {"pixels": np.zeros((1, 1, 1, 3), np.uint8)}


class Recording:
    """A runner that notes that it ran, and calls `meanwhile`."""

    in_flight = 1

    def __init__(self, name: str, ran: list[str], dim: int) -> None:
        self.name, self.ran = name, ran
        self.row = np.full((1, dim), dim**-0.5, np.float32)
        self.meanwhile: Callable[[], object] = lambda: None

    def run(self, inputs: Mapping[str, Any]) -> Any:
        del inputs
        self.ran.append(self.name)
        self.meanwhile()
        return self.row

    def prepare(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def ran() -> list[str]:
    """Which runner ran, in order."""
    return []


@pytest.fixture
def open_tower(tiny_bundle: Path, ran: list[str]) -> Callable[..., tuple[Tower, Recording]]:
    """Makes a tower and its session with all threads; `streams` is False for one without a second session."""
    bundle = Bundle.open(tiny_bundle)

    def make(runs: Runs | None = None, *, streams: bool = True, name: str = "") -> tuple[Tower, Recording]:
        whole, stream = (Recording(name + kind, ran, bundle.manifest.model.embedding_dim) for kind in ("whole", "one"))
        graph = bundle.graph("vision", "fp32", "cpu")
        return Tower(bundle, graph, "cpu", whole, stream if streams else None, 2 if streams else 1, runs), whole

    return make


def test_a_run_beside_another_takes_one_core(open_tower: Any, ran: list[str]) -> None:
    tower, whole = open_tower()
    whole.meanwhile = lambda: tower.run(PIXELS)
    tower.run(PIXELS)
    whole.meanwhile = lambda: None
    tower.run(PIXELS)
    assert ran == ["whole", "one", "whole"]


def test_streams_and_the_other_tower_count(open_tower: Any, ran: list[str]) -> None:
    runs = Runs()
    (first, _), (second, of_second) = open_tower(runs, name="a-"), open_tower(runs, name="b-")
    of_second.meanwhile = lambda: first.run(PIXELS)
    second.run(PIXELS)
    assert ran == ["b-whole", "a-one"]
    with runs.entered() as alone:
        assert alone
        first.run(PIXELS)
        first.run_stream(PIXELS)
    assert ran[2:] == ["a-one", "a-one"]


def test_without_streams_there_is_one_session_for_all(open_tower: Any, ran: list[str]) -> None:
    runs = Runs()
    tower, _ = open_tower(runs, streams=False)
    with runs.entered():
        tower.run(PIXELS)
        tower.run_stream(PIXELS)
    assert ran == ["whole", "whole"]


def test_a_run_that_fails_is_over(open_tower: Any, ran: list[str]) -> None:
    tower, whole = open_tower()

    def fail() -> None:
        raise RuntimeError

    whole.meanwhile = fail
    for _ in range(2):
        with pytest.raises(RuntimeError):
            tower.run(PIXELS)
    assert ran == ["whole", "whole"]


def test_the_towers_of_a_model_share_their_runs(tiny_bundle: Path) -> None:
    with align_runtime.load(tiny_bundle, streams=2) as model, align_runtime.load(tiny_bundle, streams=2) as other:
        towers = [tower._runs for tower in model._parts.towers]
        assert towers[0] is towers[1]
        assert other._parts.towers[0]._runs is not towers[0]


def test_callers_side_by_side_get_the_rows_of_callers_in_turn(tiny_bundle: Path) -> None:
    texts = [f"a photo of {number} cats" for number in range(12)]
    with align_runtime.load(tiny_bundle, threads=2, streams=2) as model:
        expected = [model.embed_texts([text]) for text in texts]
        found: dict[int, Any] = {}

        def call(number: int) -> None:
            for _ in range(20):
                found[number] = model.embed_texts([texts[number]])
                np.testing.assert_array_equal(found[number], expected[number])

        callers = [threading.Thread(target=call, args=(number,)) for number in range(len(texts))]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    for number, rows in enumerate(expected):
        np.testing.assert_array_equal(found[number], rows)


@pytest.mark.parametrize(("installed", "expected"), [("1.25.1", "0"), ("1.26.0", "1"), ("1.32.0", "1")])
def test_threads_spin_where_it_has_an_end(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, installed: str, expected: str
) -> None:
    onnxruntime = import_onnxruntime()
    monkeypatch.setattr(onnxruntime, "__version__", installed)
    runner = OnnxRuntimeRunner(tiny_bundle / "onnx" / "vision_model.onnx", 2)
    options = runner._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == expected
    limit = options.get_session_config_entry("session.intra_op.spin_duration_us")
    assert limit == str(backend.SPIN_MICROSECONDS) == "1000"


def test_threads_of_other_providers_do_not_spin(tiny_bundle: Path) -> None:
    runner = OnnxRuntimeRunner(tiny_bundle / "onnx" / "vision_model.onnx", 2, configure=lambda options: None)
    options = runner._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
