"""ONNX Runtime's execution provider for NVIDIA GPUs: its options, and the libraries that it needs."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any

from align_runtime.errors import BackendUnavailableError
from align_runtime.onnxruntime_import import import_onnxruntime

INSTALL = "pip uninstall onnxruntime && pip install 'align-onnx[gpu]'"
GRAPHS = "enable_cuda_graph"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Provider:
    """An execution provider of ONNX Runtime, the device of its tensors, and its options.

    The default options are those for FP32. No TF32, since the parity gate compares full float32. Convolutions in
    NHWC, the layout of tensor cores. Biases are added by a kernel of their own: to fuse one into a convolution, cuDNN
    compiles a kernel for each of them. Its heuristic chooses the algorithms: "EXHAUSTIVE" gets ready later and is not
    faster. docs/benchmarks.md has the figures.
    """

    name: str = "CUDAExecutionProvider"
    device: str = "cuda"
    options: Mapping[str, str] = field(
        default_factory=lambda: {
            GRAPHS: "1",
            "prefer_nhwc": "1",
            "use_tf32": "0",
            "fuse_conv_bias": "0",
            "cudnn_conv_algo_search": "HEURISTIC",
            "cudnn_conv_use_max_workspace": "1",
        }
    )


CUDA = Provider()
# By variant, what differs from `CUDA`; nothing for others. Without TF32, ONNX Runtime keeps the convolutions of every
# precision off the tensor cores, which FP16 needs; its values have no more digits than TF32's. In NHWC, ONNX Runtime
# 1.31 refuses depthwise convolutions whose weights are dequantized.
OPTIONS_OF: Mapping[str, Mapping[str, str]] = {
    "fp32": {},
    "fp16": {"use_tf32": "1"},
    "int8": {"use_tf32": "1", "prefer_nhwc": "0"},
}


def provider_of(variant: str) -> Provider:
    """CUDA with the options for graphs of `variant`."""
    return Provider(options={**CUDA.options, **OPTIONS_OF.get(variant, {})})


def onnxruntime_with(provider: Provider) -> Any:
    """The package onnxruntime, after a check that it has `provider` and that the provider's library loads."""
    onnxruntime = import_onnxruntime(INSTALL)
    if provider.name not in onnxruntime.get_available_providers():
        raise BackendUnavailableError(
            f"the installed onnxruntime {onnxruntime.__version__} has no {provider.name}; replace it with: {INSTALL}"
        )
    if provider.name == CUDA.name:
        _check_libraries(Path(onnxruntime.__file__).parent / "capi", onnxruntime)
    return onnxruntime


def _check_libraries(folder: Path, onnxruntime: Any) -> None:
    """Raises BackendUnavailableError with the name of a library that the CUDA provider needs and cannot load.

    ONNX Runtime itself would log it and continue without CUDA.
    """
    preload = _without_prints(onnxruntime.preload_dlls)
    preload()
    # It looks for CUDA's and cuDNN's packages beside its own; in a container they often lie where torch is.
    packages = find_spec("nvidia")
    for place in packages.submodule_search_locations or () if packages else ():
        for found in sorted(Path(place).glob("*/lib")):
            preload(directory=str(found))
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libonnxruntime_providers_cuda.so"))
        ctypes.CDLL("libcudnn.so.9")  # loaded by the provider at its first convolution
    except OSError as error:
        library = str(error).partition(":")[0]
        cure = "install the NVIDIA driver" if library == "libcuda.so.1" else f"install it with: {INSTALL}"
        raise BackendUnavailableError(f"ONNX Runtime's CUDA provider cannot be loaded ({error}); {cure}") from None


def _without_prints(function: Any) -> Any:
    """`function` with a `print` of its own, which logs; the standard output of the process stays as it is."""
    if not isinstance(function, FunctionType):
        return function
    names = function.__globals__ | {"print": lambda *words, **_: logger.debug("%s", " ".join(map(str, words)))}
    quiet = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    quiet.__kwdefaults__ = function.__kwdefaults__
    return quiet
