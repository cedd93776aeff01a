"""Installs the doubles of TensorRT and CUDA in place of the real packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import align_runtime
from align_runtime import Model
from align_runtime.backends.tensorrt.log import tensorrt_log
from support.fake_cuda import FakeCuda
from support.fake_tensorrt import FakeTensorRt
from support.strict_double import Violation

CLOSE = 1e-5  # the double computes with ONNX Runtime, as the CPU does; batches differ


def open_model(folder: Path) -> Model:
    """The FP16 engines of the bundle `folder`."""
    return align_runtime.load(folder, precision="fp16", device="tensorrt")


@dataclass(frozen=True)
class GpuDoubles:
    """A GPU and a TensorRT."""

    cuda: FakeCuda
    tensorrt: FakeTensorRt


@contextmanager
def installed(surface: str) -> Iterator[GpuDoubles]:
    """Doubles of CUDA and of the TensorRT of `surface`. Raises Violation at the end if something on the GPU leaked."""
    cuda = FakeCuda()
    tensorrt = FakeTensorRt(surface, cuda)
    package = surface.rpartition("-")[0]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("cuda", "cuda.bindings"):
            patch.setitem(sys.modules, name, ModuleType(name))
        patch.setitem(sys.modules, "cuda.bindings.runtime", cuda.module)
        patch.setitem(sys.modules, "tensorrt", None)  # so that importing it fails
        patch.setitem(sys.modules, package, tensorrt.module)
        tensorrt_log.cache_clear()
        yield GpuDoubles(cuda, tensorrt)
    tensorrt_log.cache_clear()
    if cuda.leaks():
        raise Violation(f"left on the GPU: {cuda.leaks()}")
