"""Graphs through ONNX Runtime in fixed shapes, and the errors where CUDA is missing.

The code that binds memory and pads to buckets runs here on ONNX Runtime's CPU provider; `tests/gpu` runs it on a GPU.
"""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import align_runtime
from align_runtime.backends import StagedRunner, cuda
from align_runtime.backends.buckets import Buckets
from align_runtime.backends.capture import CaptureLock
from align_runtime.backends.cuda import CudaRunner, _first_line
from align_runtime.backends.cuda_provider import (
    CUDA,
    GRAPHS,
    INSTALL,
    Provider,
    _without_prints,
    onnxruntime_with,
    provider_of,
)
from align_runtime.backends.onnxruntime import OnnxRuntimeRunner
from align_runtime.backends.runner import STAGES
from align_runtime.bundle import Bundle
from align_runtime.errors import BackendUnavailableError, BundleError, ConfigurationError, DeviceError, InputError
from align_runtime.golden import Golden
from align_runtime.image_embedding import ImageEmbedder
from align_runtime.image_options import DEFAULT_IMAGES
from align_runtime.tower import Tower
from align_runtime.workers import Workers

ON_CPU = Provider("CPUExecutionProvider", "cpu", {})
BATCHES = (1, 4)
LENGTHS = (8, 32)


def test_buckets_return_what_the_plain_graph_returns(tiny_bundle: Path, answers: Golden) -> None:
    for name, buckets, inputs in (
        ("vision", Buckets(BATCHES), {"pixels": answers.pixels}),
        ("text", Buckets(BATCHES, LENGTHS), {"input_ids": answers.input_ids, "attention_mask": answers.attention_mask}),
    ):
        file = tiny_bundle / f"onnx/{name}_model.onnx"
        plain, runner = OnnxRuntimeRunner(file, None), CudaRunner(file, buckets, ON_CPU)
        runner.prepare()
        for count in (0, 1, 3, 4, 7):
            rows = {key: values[:count] for key, values in inputs.items()}
            np.testing.assert_allclose(runner.run(rows), plain.run(rows), rtol=0, atol=1e-5)
        runner.close()
        plain.close()


def test_the_stages_of_a_run_are_timed(tiny_bundle: Path, answers: Golden) -> None:
    runner = CudaRunner(tiny_bundle / "onnx/vision_model.onnx", Buckets(BATCHES), ON_CPU)
    assert isinstance(runner, StagedRunner)
    embeds, seconds = runner.run_staged({"pixels": answers.pixels})
    np.testing.assert_array_equal(embeds, runner.run({"pixels": answers.pixels}))
    assert tuple(seconds) == STAGES
    assert min(seconds.values()) > 0
    assert seconds["compute"] == max(seconds.values())
    runner.close()


def test_images_go_out_in_the_largest_bucket(
    tiny_bundle: Path, answers: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(tiny_bundle)
    graph, rows = opened.graph("vision", "fp32", "cpu"), list[int]()
    runner, workers = CudaRunner(tiny_bundle / graph.file, Buckets(BATCHES), ON_CPU), Workers(3)
    original = CudaRunner.run

    def run(runner: CudaRunner, inputs: dict[str, np.ndarray]) -> np.ndarray:
        rows.append(len(inputs["pixels"]))
        return original(runner, inputs)

    monkeypatch.setattr(CudaRunner, "run", run)
    tower = Tower(opened, graph, "cpu", runner, None, 1)
    images = ImageEmbedder(tower, opened.manifest.preprocessing, DEFAULT_IMAGES, workers, workers)
    expected = np.concatenate([part.embeddings for part in images.parts(answers.pixels)])
    for count, batch_size, sizes in ((10, None, [4, 4, 2]), (5, 3, [3, 2]), (5, 8, [4, 1])):
        rows.clear()
        order = np.arange(count) % len(answers.pixels)
        embeds = np.concatenate([part.embeddings for part in images.parts(answers.pixels[order], batch_size)])
        np.testing.assert_allclose(embeds, expected[order], rtol=0, atol=2e-5)
        assert sorted(rows, reverse=True) == sizes
    workers.close()
    runner.close()


def test_short_texts_are_padded(tiny_bundle: Path, answers: Golden) -> None:
    file = tiny_bundle / "onnx/text_model.onnx"
    length = int(answers.attention_mask[1].sum())
    inputs = {"input_ids": answers.input_ids[1:2, :length], "attention_mask": answers.attention_mask[1:2, :length]}
    runner = CudaRunner(file, Buckets(BATCHES, LENGTHS), ON_CPU)
    np.testing.assert_allclose(runner.run(inputs), answers.text_embeds[1:2], rtol=0, atol=2e-5)
    longer = {name: np.tile(values, 9) for name, values in inputs.items()}
    with pytest.raises(InputError, match="does not fit"):
        runner.run(longer)
    runner.close()


def test_threads_share_a_runner(tiny_bundle: Path, answers: Golden) -> None:
    runner = CudaRunner(tiny_bundle / "onnx/vision_model.onnx", Buckets(BATCHES), ON_CPU)
    wrong: list[int] = []

    def work(row: int) -> None:
        embeds = runner.run({"pixels": answers.pixels[row : row + 1]})
        if np.abs(embeds - answers.image_embeds[row : row + 1]).max() > 2e-5:
            wrong.append(row)

    threads = [threading.Thread(target=work, args=(row,)) for row in range(len(answers.pixels))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runner.close()
    assert wrong == []


def test_wrong_graphs_and_inputs_are_refused(tiny_bundle: Path, answers: Golden, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot load"):
        CudaRunner(tmp_path / "nothing.onnx", Buckets(BATCHES), ON_CPU)
    runner = CudaRunner(tiny_bundle / "onnx/vision_model.onnx", Buckets(BATCHES), ON_CPU)
    with pytest.raises(InputError, match="pixels is float32"):
        runner.run({"pixels": answers.pixels.astype(np.float32)})
    runner.close()


def test_a_failure_during_a_run_is_an_error_of_one_line(
    tiny_bundle: Path, answers: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = CudaRunner(tiny_bundle / "onnx/vision_model.onnx", Buckets(BATCHES), ON_CPU)

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA failure 2: out of memory\nand a stack")

    monkeypatch.setattr(runner._sessions[BATCHES[0]], "run_with_iobinding", fail)
    with pytest.raises(DeviceError, match="CUDA failure 2: out of memory$"):
        runner.run({"pixels": answers.pixels[:1]})
    runner.close()


@pytest.mark.parametrize(
    ("message", "recorded"),
    [("This session cannot use the graph capture feature as requested by the user", False), ("", True)],
)
def test_cuda_graphs_are_left_out_where_a_node_is_not_on_the_gpu(
    tiny_bundle: Path, answers: Golden, monkeypatch: pytest.MonkeyPatch, message: str, recorded: bool
) -> None:
    asked = []
    load = onnxruntime.InferenceSession

    def session(file: str, options: object, providers: list[tuple[str, dict[str, str]]]) -> object:
        asked.append(dict(providers[0][1]))
        if message and GRAPHS in asked[-1]:
            raise RuntimeError(message)
        return load(file, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    provider = Provider("CPUExecutionProvider", "cpu", {GRAPHS: "1", "use_tf32": "0"})
    runner = CudaRunner(tiny_bundle / "onnx/vision_model.onnx", Buckets(BATCHES), provider)
    assert [GRAPHS in options for options in asked] == ([True] if recorded else [True, False]) * len(BATCHES)
    assert all(options["use_tf32"] == "0" for options in asked)
    embeds = runner.run({"pixels": answers.pixels})
    np.testing.assert_allclose(embeds, answers.image_embeds, rtol=0, atol=2e-5)
    runner.close()


def test_images_have_a_session_for_each_batch_and_texts_one(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution keeps the plan of its last shape only; CUDA graphs that were captured with the one before break."""
    opened = []
    load = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda file, *args, **kwargs: opened.append(file) or load(file, *args, **kwargs),
    )
    vision, text = (str(tiny_bundle / f"onnx/{name}.onnx") for name in ("vision_model", "text_model"))
    for file, lengths in ((vision, ()), (text, LENGTHS)):
        runner = CudaRunner(Path(file), Buckets(BATCHES, lengths), ON_CPU)
        loaded = list(opened)
        runner.prepare()
        assert opened == loaded  # none later, when another file may lie there
        sessions = {id(slot.session) for slot in runner._slots.values()}
        assert len(sessions) == (1 if lengths else len(BATCHES))
        assert len(runner._slots) == len(BATCHES) * len(lengths or (None,))
        runner.close()
    assert opened == [vision] * len(BATCHES) + [text]


def test_a_first_run_has_the_gpu_alone(tiny_bundle: Path, answers: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """It captures a CUDA graph; later runs share it."""
    taken: list[str] = []

    class Lock(CaptureLock):
        def shared(self) -> AbstractContextManager[None]:
            taken.append("shared")
            return super().shared()

        def alone(self) -> AbstractContextManager[None]:
            taken.append("alone")
            return super().alone()

    monkeypatch.setattr(cuda, "CAPTURES", Lock())
    runner = CudaRunner(tiny_bundle / "onnx/vision_model.onnx", Buckets(BATCHES), ON_CPU)
    for rows in (1, 1, 4):
        runner.run({"pixels": answers.pixels[:rows]})
    runner.close()
    assert taken == ["shared", "alone", "shared", "alone", "shared"]


def test_options_fit_the_precision() -> None:
    """Seen on an H100: FP16 without tensor cores, INT8 weights that ONNX Runtime reads in the wrong layout."""
    options = {variant: provider_of(variant).options for variant in ("fp32", "fp16", "int8", "another")}
    assert {variant: (values["use_tf32"], values["prefer_nhwc"]) for variant, values in options.items()} == {
        "fp32": ("0", "1"), "fp16": ("1", "1"), "int8": ("1", "0"), "another": ("0", "1"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "/onnxruntime_src/cuda_call.cc:154 std::conditional_t<THRW, void> onnxruntime::CudaCall(ERRTYPE) "
            "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=vm ; file=cuda_graph.cc",
            "CUDA failure 700: an illegal memory access was encountered",
        ),
        ("x\nCUDNN_FE failure 8: HEURISTIC_QUERY_FAILED ; GPU=0", "CUDNN_FE failure 8: HEURISTIC_QUERY_FAILED"),
        ("Non-zero status code\nand a stack", "Non-zero status code"),
    ],
)
def test_failures_of_cuda_are_told_in_their_own_words(said: str, told: str) -> None:
    assert _first_line(RuntimeError(said)) == told


def test_libraries_are_found_beside_other_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's packages lie where torch is, ONNX Runtime in an environment of its own."""
    for name in ("cu13", "cudnn"):
        (tmp_path / "nvidia" / name / "lib").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA.name])
    asked: list[str | None] = []
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda directory=None: asked.append(directory), raising=False)
    with pytest.raises(BackendUnavailableError):
        onnxruntime_with(CUDA)
    assert asked[0] is None
    assert {str(tmp_path / "nvidia" / name / "lib") for name in ("cu13", "cudnn")} <= set(asked[1:])


def test_onnxruntime_without_cuda_is_an_error(tiny_bundle: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="CUDAExecutionProvider") as caught:
        align_runtime.load(tiny_bundle, device="cuda")
    assert onnxruntime.__version__ in str(caught.value)
    assert str(caught.value).endswith(INSTALL)


def test_a_missing_onnxruntime_is_an_error(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendUnavailableError, match=r"onnxruntime .*align-onnx\[gpu\]"):
        align_runtime.load(tiny_bundle, device="cuda")


def test_the_missing_library_is_named(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel with the CUDA provider whose libraries are missing."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA.name])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda directory=None: None, raising=False)
    monkeypatch.setattr(onnxruntime, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(BackendUnavailableError, match=r"libonnxruntime_providers_.*\.so"):
        align_runtime.load(tiny_bundle, device="cuda")


def test_what_onnxruntime_prints_is_logged(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Standard output belongs to the process: another thread may print meanwhile."""

    def preload(times: int = 2, *, word: str = "missing") -> int:
        print(f"libcudnn is {word}", times)  # noqa: T201
        return times

    before = sys.stdout
    with caplog.at_level(logging.DEBUG):
        assert _without_prints(preload)() == 2
    assert sys.stdout is before
    assert capsys.readouterr().out == ""
    assert caplog.messages == ["libcudnn is missing 2"]
    assert _without_prints(len)("abc") == 3


def test_a_provider_that_does_not_start_is_an_error(tiny_bundle: Path) -> None:
    """ONNX Runtime would fall back to the CPU."""
    runner = CudaRunner(tiny_bundle / "onnx/vision_model.onnx", Buckets(BATCHES), ON_CPU)
    runner._provider = CUDA
    with pytest.raises(BackendUnavailableError, match="nvidia-smi"):
        runner._checked(runner._sessions[BATCHES[0]])
    runner.close()


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_threads_are_for_cpus(tiny_bundle: Path, device: str) -> None:
    with pytest.raises(ConfigurationError, match=f"threads is 2.*{device}"):
        align_runtime.load(tiny_bundle, device=device, threads=2)
