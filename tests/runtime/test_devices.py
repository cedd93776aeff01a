"""The table of backends: a new backend is a row and a module."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import align_runtime
from align_runtime import Bundle, ConfigurationError, golden
from align_runtime.backends import open_graph
from align_runtime.backends.onnxruntime import OnnxRuntimeRunner
from align_runtime.devices import BACKENDS, DEVICES, Backend, backend_of, resolve_device, split_device, targets_on
from align_runtime.graph_entry import ANY_TARGET, CPU_TARGET, GPU_TARGET, TARGETS, Graph
from align_runtime.memory import MemoryUse


def add_backend(monkeypatch: pytest.MonkeyPatch, target: str, on_cpu: bool) -> ModuleType:
    """A backend "toy" that runs graphs with ONNX Runtime."""
    module = ModuleType("toy_backend")
    monkeypatch.setitem(sys.modules, "toy_backend", module)
    monkeypatch.setitem(BACKENDS, "toy", Backend("toy_backend", target, on_cpu))  # type: ignore[arg-type]
    return module


def test_a_cpu_backend_is_a_row_and_a_module(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, int | None, str, int]] = []

    def open_file(
        file: Path, threads: int | None, memory: MemoryUse, precision: str, streams: int
    ) -> OnnxRuntimeRunner:
        opened.append((file.name, threads, precision, streams))
        return OnnxRuntimeRunner(file, threads, memory)

    add_backend(monkeypatch, CPU_TARGET, on_cpu=True).open_file = open_file  # type: ignore[attr-defined]
    answers = golden.read(Bundle.open(tiny_bundle))
    with align_runtime.load(tiny_bundle, device="toy", threads=2) as model:  # type: ignore[arg-type]
        assert (model.info.device, model.info.threads, model.info.streams) == ("toy", 2, 2)
        np.testing.assert_allclose(model.embed_texts(answers.texts), answers.text_embeds, rtol=0, atol=2e-5)
    assert sorted(opened) == [
        (f"{tower}.onnx", threads, "fp32", streams)
        for tower in ("text_model_cpu", "vision_model")
        for threads, streams in ((1, 2), (2, 1))
    ]


def test_a_gpu_backend_is_a_row_and_a_module(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, int, bool]] = []

    def open_on_gpu(bundle: Bundle, graph: Graph, gpu: int, check_hashes: bool) -> OnnxRuntimeRunner:
        opened.append((graph.file, gpu, check_hashes))
        return OnnxRuntimeRunner(bundle.graph_file(graph, check_hashes), 1)

    add_backend(monkeypatch, GPU_TARGET, on_cpu=False).open_graph = open_on_gpu  # type: ignore[attr-defined]
    answers = golden.read(Bundle.open(tiny_bundle))
    with align_runtime.load(tiny_bundle, device="toy:3", check_hashes=True) as model:
        assert (model.info.device, model.info.threads, model.info.streams) == ("toy:3", None, 1)
        np.testing.assert_allclose(model.embed_pixels(answers.pixels), answers.image_embeds, rtol=0, atol=2e-5)
    assert opened == [("onnx/vision_model.onnx", 3, True), ("onnx/text_model.onnx", 3, True)]
    for options in ({"threads": 2}, {"streams": 2}):
        with pytest.raises(ConfigurationError, match=f"{next(iter(options))} is 2.*toy"):
            align_runtime.load(tiny_bundle, device="toy", **options)  # type: ignore[arg-type]


def test_unknown_devices(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    for call in (
        lambda: align_runtime.load(tiny_bundle, device="tpu"),  # type: ignore[arg-type]
        lambda: open_graph(bundle, bundle.manifest.graphs[0], "tpu", None),
        lambda: backend_of("tpu"),
        lambda: resolve_device("tpu"),
    ):
        with pytest.raises(ConfigurationError, match="device is 'tpu'.*openvino, cuda, tensorrt, tensorrt-rtx, auto"):
            call()


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda:", "index of a GPU, as in 'cuda:1'"),
        ("cuda:-1", "index of a GPU"),
        ("cuda:01", "index of a GPU"),
        ("cuda:1.5", "index of a GPU"),
        ("cuda:1:2", "index of a GPU"),
        ("tensorrt:٣", "index of a GPU, as in 'tensorrt:1'"),
        ("cuda:9999", "index of a GPU"),
        ("cpu:0", "cpu is one device"),
        ("auto:1", "known: cpu, openvino, cuda, tensorrt, tensorrt-rtx, auto"),
        (1, "known: cpu"),
    ],
)
def test_an_index_that_is_none(device: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        resolve_device(device)


def test_a_gpu_by_its_index() -> None:
    assert split_device("cuda:12") == ("cuda", 12)
    assert split_device("tensorrt") == ("tensorrt", 0)
    assert (resolve_device("cuda:1"), targets_on("cuda:1")) == ("cuda:1", (GPU_TARGET, ANY_TARGET))


def test_targets() -> None:
    assert {device: targets_on(device) for device in DEVICES} == {
        "cpu": (CPU_TARGET, ANY_TARGET),
        "openvino": (CPU_TARGET, ANY_TARGET),
        "cuda": (GPU_TARGET, ANY_TARGET),
        "tensorrt": (GPU_TARGET, ANY_TARGET),
        "tensorrt-rtx": (GPU_TARGET, ANY_TARGET),
    }
    assert [targets_on(target)[0] for target in TARGETS] == list(TARGETS)
