"""Backends: what runs a graph on a device. Each is one module, imported only when its device is asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from align_runtime.errors import ConfigurationError

DEVICES = ("cpu",)
AUTO = "auto"

logger = logging.getLogger(__name__)


class Runner(Protocol):
    """A loaded graph with one output. `run` may be called from many threads at once."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The graph's output for `inputs`, whose names, dtypes and shapes are those of the graph."""

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
    """Loads the graph in `file` onto `device`; `threads` of one call, all cores when None.

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
    """`device`, or the best one here where it is ``"auto"``.

    Which one that is, is logged as a warning, for warnings are seen where a program has not configured any logging.
    """
    if device != AUTO:
        return device
    chosen = DEVICES[0]
    logger.warning("device 'auto' is %s here; name a device to have that one or an error", chosen)
    return chosen
