"""Devices of plugin providers: OpenVINO's embeddings are Python's; a double stands for TensorRT for RTX."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import align_runtime
from align_runtime.backends import openvino
from align_runtime.errors import BackendUnavailableError, BundleError, ConfigurationError
from cpp.test_same_embeddings import CLOSE, made_images, made_texts
from runtime.test_forks import run_program
from support.native import LIBRARY, NativeModel
from support.openvino_plugin import plugin_or_skip

RTX_DOUBLE = os.path.relpath(LIBRARY.parent / "libalign_rtx_double.so")  # ONNX Runtime looks in a folder of its own


@pytest.fixture
def plugin() -> str:
    return str(plugin_or_skip().get_library_path())


def skip_without_bfloat16(precision: str) -> None:
    if precision == "bf16" and openvino.BF16 not in openvino._cpu(onnxruntime).ep_metadata[openvino.CAPABILITIES]:
        pytest.skip("this processor has no bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "streams"), [("fp32", 2), ("fp32_cpu", 1), ("bf16", 1)])
def test_openvino(library: ctypes.CDLL, tiny_bundle: Path, plugin: str, precision: str, streams: int) -> None:
    skip_without_bfloat16(precision)
    towers = ("text",) if precision == "fp32_cpu" else ("vision", "text")  # images have no graph for CPUs alone
    options = {"device": "openvino", "precision": precision, "threads": 2, "streams": streams}
    native = NativeModel(library, tiny_bundle, provider_library=plugin, towers=",".join(towers), **options)
    with native, align_runtime.load(tiny_bundle, towers=towers, **options) as model:
        for count in (1, 9):
            texts, images = made_texts(count), made_images(count)
            np.testing.assert_allclose(native.embed_texts(texts), model.embed_texts(texts), **CLOSE)
            if "vision" in towers:
                np.testing.assert_allclose(native.embed_images(images), model.embed_images(images), **CLOSE)


def test_the_library_of_the_environment(
    library: ctypes.CDLL, tiny_bundle: Path, plugin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGN_PROVIDER_LIBRARY", plugin)
    with NativeModel(library, tiny_bundle, device="openvino", towers="text") as native:
        assert native.embed_texts(["a cat"]).shape == (1, native.dim)


def test_openvino_computes_in_two_precisions(library: ctypes.CDLL, tiny_bundle: Path) -> None:
    for precision in ("fp16", "int8", "int8_cpu", "fp64"):
        with pytest.raises(ConfigurationError, match=f"precision is '{precision}'.*fp32 and bf16"):
            NativeModel(library, tiny_bundle, device="openvino", precision=precision)
    for device in ("openvino:0", "tensorrt-rtx:01", "tensorrt-rtx:"):
        with pytest.raises(ConfigurationError, match=f"device is '{device}'"):
            NativeModel(library, tiny_bundle, device=device)
    with pytest.raises(ConfigurationError, match="threads is 2"):
        NativeModel(library, tiny_bundle, device="tensorrt-rtx", threads=2)


# In a process of its own, which has loaded no provider.
WRONG_LIBRARIES = """
import sys
sys.path.append(sys.argv[2])
from pathlib import Path
from align_runtime.errors import BackendUnavailableError
from runtime.test_forks import run_program
from support.native import NativeModel, load_library

for device in ("openvino", "tensorrt-rtx"):
    for path in ("libgone.so", "libm.so.6"):
        try:
            NativeModel(load_library(), Path(sys.argv[1]), device=device, provider_library=path)
        except BackendUnavailableError as error:
            print(error)
"""


def test_libraries_that_are_no_provider(library: ctypes.CDLL, tiny_bundle: Path) -> None:
    printed = run_program(WRONG_LIBRARIES, str(tiny_bundle), str(Path(__file__).parents[1])).splitlines()
    names = ("OpenVINOExecutionProvider", "NvTensorRTRTXExecutionProvider")
    assert len(printed) == 4
    for name, (gone, other) in zip(names, (printed[:2], printed[2:]), strict=True):
        assert re.match(f"{name} cannot be loaded .*libgone.so.*; install .* provider_library", gone)
        assert re.match(f"ONNX Runtime .* cannot load .*libm.so.6 as {name} ", other)


def test_a_graph_that_the_provider_refuses_runs_on_no_other(library: ctypes.CDLL, tiny_bundle: Path) -> None:
    for device in ("tensorrt-rtx", "tensorrt-rtx:1"):
        with pytest.raises(BundleError, match="the double of TensorRT for RTX runs nothing"):
            NativeModel(library, tiny_bundle, device=device, provider_library=RTX_DOUBLE)
    with pytest.raises(BackendUnavailableError, match="has 2 devices on this machine, and none with the index 2"):
        NativeModel(library, tiny_bundle, device="tensorrt-rtx:2", provider_library=RTX_DOUBLE)
