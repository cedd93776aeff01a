"""Without TensorRT, CUDA or a GPU: short errors with the command that installs what is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import align_runtime
from align_exporter.command import main
from align_runtime.commands import verify
from align_runtime.errors import BackendUnavailableError

INSTALL = "install it with: pip install 'align-onnx[tensorrt]'"


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither TensorRT nor CUDA for Python, wherever the tests run."""
    for name in ("tensorrt", "tensorrt_lean", "tensorrt_rtx", "cuda", "cuda.bindings", "cuda.bindings.runtime"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("absent")
def test_loading_an_engine_without_the_packages(tiny_bundle: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="CUDA for Python .*pip install 'cuda-bindings>=13'$"):
        align_runtime.load(tiny_bundle, device="tensorrt")


@pytest.mark.usefixtures("absent")
def test_building_and_verifying_without_the_packages(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tiny_checkpoint), "-o", str(tmp_path / "bundle"), "--engine", "--quiet"]) == 2
    assert capsys.readouterr().err.startswith("align-export: error: CUDA for Python cannot be imported")
    assert not (tmp_path / "bundle").exists()
    assert verify.main([str(tiny_bundle), "--device", "tensorrt", "--quiet"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def cuda_without_gpu() -> ModuleType:
    """A cuda.bindings.runtime as on a machine without a driver."""
    module = ModuleType("cuda.bindings.runtime")
    success, missing = 0, 35

    class Error(int):
        cudaSuccess = success  # noqa: N815 (CUDA's name)

    module.__dict__.update(
        cudaError_t=Error,
        cudaGetDeviceCount=lambda: (Error(missing), None),
        cudaGetErrorString=lambda error: (Error(success), b"CUDA driver version is insufficient"),
    )
    return module


def test_a_machine_without_a_gpu_says_so(tiny_bundle: Path, absent: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda_without_gpu())
    with pytest.raises(BackendUnavailableError, match="CUDA driver version is insufficient"):
        align_runtime.load(tiny_bundle, device="tensorrt")


def test_a_gpu_without_tensorrt_says_what_to_install(
    tiny_bundle: Path, absent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = cuda_without_gpu()
    success = module.cudaError_t(0)
    module.__dict__.update(
        cudaGetDeviceCount=lambda: (success, 1),
        cudaGetDeviceProperties=lambda device: (success, SimpleNamespace(name=b"GPU", major=9, minor=0)),
        cudaDriverGetVersion=lambda: (success, 13000),
    )
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", module)
    with pytest.raises(BackendUnavailableError, match="TensorRT") as raised:
        align_runtime.load(tiny_bundle, device="tensorrt")
    assert str(raised.value).endswith(INSTALL)
