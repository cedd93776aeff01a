"""Graphs whose file is the one of the manifest and whose answers are no embeddings: none is passed on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import align_runtime
from align_runtime import BundleError, DeviceError
from align_runtime.backends.buckets import Buckets
from align_runtime.backends.cuda import CudaRunner
from align_runtime.backends.cuda_provider import Provider
from align_runtime.backends.runner import STAGES
from align_runtime.bundle import Bundle
from align_runtime.commands import verify
from align_runtime.tower import Tower
from support.forged_bundles import constant_graph, put_graph

DIM = 96
UNIT = np.full(DIM, DIM**-0.5, np.float32)


def with_value(value: float) -> NDArray[np.float32]:
    row = UNIT.copy()
    row[7] = value
    return row


# What the graph answers for each input, and a word of the message.
ROWS: dict[str, tuple[NDArray[Any], str]] = {
    "NaN": (with_value(np.nan), "NaN or infinite"),
    "infinite": (with_value(np.inf), "NaN or infinite"),
    "zeros": (np.zeros(DIM, np.float32), "length 0 "),
    "not normalized": (3 * UNIT, "length 3 "),
    "a little too long": (np.float32(1.002) * UNIT, "length 1.002 "),
    "a little too short": (np.float32(0.998) * UNIT, "length 0.998 "),
    "squares overflow": (np.full(DIM, 1e30, np.float32), "length 9.798e+30 "),
    "float16": (UNIT.astype(np.float16), "float16"),
    "float64": (UNIT.astype(np.float64), "float64"),
    "integers": (np.eye(DIM, dtype=np.int64)[0], "int64"),
    "texts": (np.full(DIM, "x", dtype=object), "object"),
    "one more column": (np.full(DIM + 1, (DIM + 1) ** -0.5, np.float32), f", {DIM + 1}), expected"),
    "a third dimension": (UNIT[None], f", 1, {DIM}), expected"),
}
# What it answers however many inputs there are.
WHOLE: dict[str, NDArray[Any]] = {
    "one row for all": UNIT[None],
    "more rows than inputs": np.tile(UNIT, (3, 1)),
    "a single value": np.float32(1),
    "no rows": np.empty((0, DIM), np.float32),
}


@pytest.fixture
def size(tiny_bundle: Path) -> tuple[int, int]:
    return Bundle.open(tiny_bundle).manifest.preprocessing.output_size


def refused(bundle: Path, tower: str, word: str) -> None:
    """Both ways that a CPU computes in: with all threads, and in streams."""
    for streams in (1, 2):
        with align_runtime.load(bundle, towers=(tower,), threads=2, streams=streams) as model:
            inputs = [np.zeros((8, 8, 3), np.uint8)] * 2 if tower == "vision" else ["a", "b"] * 4
            with pytest.raises(BundleError) as caught:
                model.embed_images(inputs) if tower == "vision" else model.embed_texts(inputs)
            assert word in str(caught.value)


@pytest.mark.parametrize("name", ROWS)
def test_rows_that_are_no_embeddings(name: str, bundle_copy: Path, size: tuple[int, int]) -> None:
    answer, word = ROWS[name]
    refused(put_graph(bundle_copy, "vision", constant_graph("vision", answer, size)), "vision", word)


@pytest.mark.parametrize("name", ["NaN", "zeros", "float16", "one more column"])
def test_texts_too(name: str, bundle_copy: Path, size: tuple[int, int]) -> None:
    answer, word = ROWS[name]
    refused(put_graph(bundle_copy, "text", constant_graph("text", answer, size)), "text", word)


@pytest.mark.parametrize("name", WHOLE)
def test_another_number_of_rows(name: str, bundle_copy: Path, size: tuple[int, int]) -> None:
    put_graph(bundle_copy, "vision", constant_graph("vision", WHOLE[name], size, per_row=False))
    with align_runtime.load(bundle_copy, towers=("vision",), streams=1) as model, pytest.raises(BundleError):
        model.embed_images([np.zeros((8, 8, 3), np.uint8)] * 2)


def test_a_row_of_unit_length_passes(bundle_copy: Path, size: tuple[int, int]) -> None:
    """The forged graphs above fail for what they answer, not for how they are made; rounding to FP16 is no fault."""
    for row in (UNIT, UNIT.astype(np.float16).astype(np.float32), np.float32(1.0009) * UNIT):
        put_graph(bundle_copy, "vision", constant_graph("vision", row, size))
        with align_runtime.load(bundle_copy, towers=("vision",)) as model:
            np.testing.assert_array_equal(model.embed_images([np.zeros((8, 8, 3), np.uint8)] * 2), [row, row])


def test_graphs_with_no_or_two_outputs_are_not_loaded(bundle_copy: Path, size: tuple[int, int]) -> None:
    model = constant_graph("vision", UNIT, size)
    model.graph.output.append(onnx.helper.make_tensor_value_info("count", onnx.TensorProto.INT64, [1]))
    put_graph(bundle_copy, "vision", model)
    with pytest.raises(BundleError, match="2 outputs"):
        align_runtime.load(bundle_copy)
    del model.graph.output[:]
    put_graph(bundle_copy, "vision", model)
    with pytest.raises(BundleError):
        align_runtime.load(bundle_copy)


@pytest.mark.parametrize("name", ["float16", "float64", "integers", "a third dimension"])
def test_a_gpu_allocates_no_memory_for_another_output(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    """The session of ONNX Runtime tells the type and shape, before anything runs; here without a GPU."""
    file = tmp_path / "graph.onnx"
    on_cpu = Provider("CPUExecutionProvider", "cpu", {})
    for answer, is_refused in ((UNIT, False), (ROWS[name][0], True)):
        file.write_bytes(constant_graph("vision", answer, size).SerializeToString())
        with pytest.raises(BundleError, match="expected one float32") if is_refused else nullcontext():
            CudaRunner(file, Buckets((1,)), on_cpu).close()


def test_the_row_is_named(bundle_copy: Path) -> None:
    """Of several rows the first one that is wrong, also where another one is worse."""
    rows = np.tile(UNIT, (4, 1))
    rows[2] *= 2
    rows[3] = np.nan
    with pytest.raises(BundleError, match=r"length 2 \(row 2 of 4\)"):
        tower(bundle_copy, "cpu", rows).run({"pixels": np.zeros((4, 1, 1, 3), np.uint8)})


class Answering:
    """A runner, of a GPU too, that answers with `rows`."""

    def __init__(self, rows: object) -> None:
        self.rows = rows

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Any:
        return self.rows

    def run_staged(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[Any, Mapping[str, float]]:
        return self.rows, dict.fromkeys(STAGES, 1.0)

    def prepare(self) -> None:
        pass

    def close(self) -> None:
        pass


def tower(folder: Path, device: str, rows: object) -> Tower:
    bundle = Bundle.open(folder)
    runner = Answering(rows)
    return Tower(bundle, bundle.graph("vision", "fp32", "cpu"), device, runner, runner, 2)


@pytest.mark.parametrize(("device", "error"), [("cpu", BundleError), ("cuda", DeviceError), ("tensorrt", DeviceError)])
def test_every_way_to_run_a_tower_is_checked(tiny_bundle: Path, device: str, error: type[Exception]) -> None:
    """A row that is wrong may be the fault of a GPU; a wrong type or shape is one of the file on every device."""
    inputs = {"pixels": np.zeros((2, 1, 1, 3), np.uint8)}
    answers = ((np.tile(with_value(np.nan), (2, 1)), error), (np.ones((2, DIM)), BundleError), ([], BundleError))
    for rows, raised in answers:
        wrong = tower(tiny_bundle, device, rows)
        for run in (wrong.run, wrong.run_stream, wrong.staged_seconds):
            with pytest.raises(raised) as caught:
                run(inputs)
            assert type(caught.value) is raised


def test_verify_tells_each_graph_that_gives_no_embeddings(
    bundle_copy: Path, size: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    """And still checks the others."""
    put_graph(bundle_copy, "vision", constant_graph("vision", ROWS["NaN"][0], size))
    assert verify.main([str(bundle_copy), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert [(check["ok"], check["parity"] is None) for check in result["checks"]] == [
        (False, True), (True, False), (True, False),
    ]  # fmt: skip
    (failure,) = result["failures"]
    assert "onnx/vision_model.onnx on cpu returns a row with NaN" in failure
    assert verify.main([str(bundle_copy), "--quiet"]) == 1
    assert "FAILED" in capsys.readouterr().out
