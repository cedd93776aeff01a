"""Backends: what runs a graph on a device. Each is one module, imported only when its device is asked for."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from align_runtime.errors import ConfigurationError

DEVICES = ("cpu", "cuda", "tensorrt")
AUTO = "auto"

logger = logging.getLogger(__name__)


class Runner(Protocol):
    """A loaded graph with one output. `run` may be called from many threads at once."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The graph's output for `inputs`, whose names, dtypes and shapes are those of the graph."""

    def prepare(self) -> None:
        """Sets up all that `run` would set up on its first call."""

    def close(self) -> None:
        """Frees what the graph holds; `run` must not be called afterwards."""


@runtime_checkable
class StagedRunner(Protocol):
    """A runner that can tell the time of copying from that of computing."""

    def run_staged(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], Mapping[str, float]]:
        """As `run`, with seconds of ``"host to device"``, ``"compute"`` and ``"device to host"``.

        The device is waited for after each of them, so that none is charged for another.
        """


def open_runner(file: Path, device: str, threads: int | None) -> Runner:
    """Loads the graph in `file` onto the CPU; `threads` of one call, all cores when None.

    Graphs of a bundle go through `align_runtime.opening.open_graph`, which knows all devices.

    Raises:
        ConfigurationError: no such device.
        BackendUnavailableError: the package or library for it is missing or does not work.
        BundleError: the file cannot be loaded.
    """
    if device == "cpu":
        from align_runtime.backends.onnxruntime import OnnxRuntimeRunner

        return OnnxRuntimeRunner(file, threads)
    raise ConfigurationError(f"device is {device!r}; known: {', '.join(DEVICES)}")


def resolve_device(device: str) -> str:
    """`device`; for ``"auto"`` ``"cuda"`` if its driver and ONNX Runtime's provider are there, else ``"cpu"``.

    Which one that is, is logged as a warning, for warnings are seen where a program has not configured any logging.
    ``"tensorrt"`` is never chosen: it needs engines, which not every bundle holds.
    """
    if device != AUTO:
        return device
    chosen = "cuda" if _has_cuda() else "cpu"
    logger.warning("device 'auto' is %s here; name a device to have that one or an error", chosen)
    return chosen


def _has_cuda() -> bool:
    try:
        import onnxruntime

        ctypes.CDLL("libcuda.so.1")
    except (ImportError, OSError):
        return False
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
