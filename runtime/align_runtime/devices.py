"""Devices: one table of what runs graphs on each of them. A new backend is a row here and its module."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from align_runtime.errors import ConfigurationError
from align_runtime.graph_entry import ANY_TARGET, CPU_TARGET, GPU_TARGET
from align_runtime.onnxruntime_import import import_onnxruntime

AUTO = "auto"
Device = Literal["cpu", "cuda", "tensorrt", "auto"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backend:
    """What runs graphs on one device.

    Attributes:
        module: the module to import when the device is asked for. On a CPU it has ``open_file(file, threads, memory)``,
            which loads any ONNX file, otherwise ``open_graph(bundle, graph, check_hashes)``. Both return a `Runner`.
        target: the graphs that were built for this target are preferred; those for any target run too.
        on_cpu: whether a CPU computes, so that `threads` and `streams` apply.
    """

    module: str
    target: str
    on_cpu: bool = False


BACKENDS: Mapping[str, Backend] = {
    "cpu": Backend("align_runtime.backends.onnxruntime", CPU_TARGET, on_cpu=True),
    "cuda": Backend("align_runtime.backends.cuda", GPU_TARGET),
    "tensorrt": Backend("align_runtime.backends.tensorrt.runner", GPU_TARGET),
}
DEVICES = tuple(BACKENDS)


def backend_of(device: str) -> Backend:
    """The row of `device`.

    Raises:
        ConfigurationError: there is no such device.
    """
    if device not in BACKENDS:
        raise ConfigurationError(f"device is {device!r}; known: {', '.join([*DEVICES, AUTO])}")
    return BACKENDS[device]


def targets_on(device: str) -> tuple[str, str]:
    """Targets of the graphs that run on `device`, the preferred one first. A target stands for its own devices."""
    return (BACKENDS[device].target if device in BACKENDS else device, ANY_TARGET)


def resolve_device(device: str) -> Device:
    """`device`, checked; for ``"auto"`` ``"cuda"`` if its driver and ONNX Runtime's provider are there, else ``"cpu"``.

    The choice is logged as a warning: a service should name its device. ``"auto"`` never takes ``"tensorrt"``, which
    needs engines that not every bundle has.

    Raises:
        ConfigurationError: there is no such device.
    """
    if device != AUTO:
        backend_of(device)
        return cast(Device, device)
    chosen: Device = "cuda" if _has_cuda() else "cpu"
    logger.warning("device 'auto' is %s here; name a device to get that one or an error", chosen)
    return chosen


def _has_cuda() -> bool:
    try:
        onnxruntime = import_onnxruntime()
        ctypes.CDLL("libcuda.so.1")
    except (ImportError, OSError):
        return False
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
