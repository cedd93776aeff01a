"""`libraries.trt` and `libraries.cudart`: TensorRT, whole or lean, and CUDA's runtime, imported when first used.

So a machine without them imports everything else, and what uses them is checked against their types where they are.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from align_runtime.errors import BackendUnavailableError

if TYPE_CHECKING:
    import tensorrt as trt
    from cuda.bindings import runtime as cudart
else:

    def __getattr__(name: str) -> Any:
        if name == "trt":
            return _load("TensorRT", ("tensorrt", "tensorrt_lean"))
        if name == "cudart":
            return _load("CUDA for Python", ("cuda.bindings.runtime",))
        raise AttributeError(f"module {__name__} has no attribute {name!r}")


__all__ = ["cudart", "trt"]


def _load(title: str, names: tuple[str, ...]) -> Any:
    reasons = []
    for name in names:
        try:
            return import_module(name)
        except (ImportError, OSError) as error:  # OSError: a library that the package loads itself
            reasons.append(str(error).splitlines()[0])
    raise BackendUnavailableError(
        f"{title} cannot be imported ({'; '.join(reasons)}); install it with: pip install 'align-onnx[tensorrt]'"
    )
