"""Backends: what runs a graph on a device. Each is one module, imported only when its device is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from align_runtime.errors import ConfigurationError

DEVICES = ("cpu", "cuda", "tensorrt")


class Runner(Protocol):
    """A loaded graph with one output. `run` may be called from many threads at once."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The graph's output for `inputs`, whose names, dtypes and shapes are those of the graph."""

    def prepare(self) -> None:
        """Sets up all that `run` would set up on its first call."""

    def close(self) -> None:
        """Frees what the graph holds; `run` must not be called afterwards."""


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
