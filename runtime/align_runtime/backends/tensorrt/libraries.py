"""`libraries.trt` (TensorRT or its lean runtime), `libraries.rtx` (TensorRT for RTX) and `libraries.cudart` (CUDA's
runtime), imported on first use.

Every module can be imported where they are missing; type checkers see their types where they are installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from align_runtime.errors import BackendUnavailableError

if TYPE_CHECKING:
    import tensorrt as trt
    import tensorrt_rtx as rtx
    from cuda.bindings import runtime as cudart

else:

    def __getattr__(name: str) -> Any:
        if name == "trt":
            return _load("TensorRT", "align-onnx[tensorrt]", ("tensorrt", "tensorrt_lean"))
        if name == "rtx":
            return _load("TensorRT for RTX", "align-onnx[rtx]", ("tensorrt_rtx",))
        if name == "cudart":
            return _load("CUDA for Python", "cuda-bindings>=13", ("cuda.bindings.runtime",))
        raise AttributeError(f"module {__name__} has no attribute {name!r}")


__all__ = ["cudart", "rtx", "trt"]


def _load(title: str, package: str, names: tuple[str, ...]) -> Any:
    reasons = []
    for name in names:
        try:
            return import_module(name)
        except (ImportError, OSError) as error:  # OSError: a shared library that the package loads
            reasons.append(str(error).splitlines()[0])
    raise BackendUnavailableError(
        f"{title} cannot be imported ({'; '.join(reasons)}); install it with: pip install '{package}'"
    )
