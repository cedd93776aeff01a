"""Devices: one table of what runs graphs on each of them. A new backend is a row here and its module.

A device is the name of a backend, on a GPU with the index of one: ``"cuda"`` is ``"cuda:0"``, the first that CUDA sees.
"""

from __future__ import annotations

import ctypes
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from align_runtime.errors import BackendUnavailableError, ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.graph_entry import ANY_TARGET, CPU_TARGET, GPU_TARGET, TARGETS
from align_runtime.onnxruntime_import import import_onnxruntime

AUTO = "auto"
Device = Literal["cpu", "openvino", "cuda", "tensorrt", "tensorrt-rtx", "auto"] | str  # the names, or "cuda:1"
INDEX = re.compile(r"0|[1-9][0-9]{0,2}")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backend:
    """What runs graphs on one device.

    Attributes:
        module: the module to import when the device is asked for. On a CPU it has ``open_file(file, threads, memory,
            precision, streams)``, which loads any ONNX file, otherwise ``open_graph(bundle, graph, gpu,
            check_hashes)``. Both return a `Runner`.
        target: the graphs that were built for this target are preferred; those for any target run too.
        on_cpu: whether a CPU computes, so that `threads` and `streams` apply.
        has_engines: whether it runs engines, which the manifest does not list, in place of graphs.
        variants: the variants that it runs; None for all.
        recasts: precisions that it computes in beside those of the graphs, by the variant that it computes so.
    """

    module: str
    target: str
    on_cpu: bool = False
    has_engines: bool = False
    variants: tuple[str, ...] | None = None
    recasts: Mapping[str, str] = field(default_factory=dict)


BACKENDS: Mapping[str, Backend] = {
    "cpu": Backend("align_runtime.backends.onnxruntime", CPU_TARGET, on_cpu=True),
    # Nothing shows which types OpenVINO computes FP16 and INT8 graphs in, so it is not given any.
    "openvino": Backend(
        "align_runtime.backends.openvino", CPU_TARGET, on_cpu=True, variants=("fp32",), recasts={"bf16": "fp32"}
    ),
    "cuda": Backend("align_runtime.backends.cuda", GPU_TARGET),
    "tensorrt": Backend("align_runtime.backends.tensorrt.runner", GPU_TARGET, has_engines=True),
    "tensorrt-rtx": Backend("align_runtime.backends.tensorrt.rtx", GPU_TARGET, has_engines=True),
}
DEVICES = tuple(BACKENDS)


def backend_of(device: str) -> Backend:
    """The row of `device`.

    Raises:
        ConfigurationError: there is no such device.
    """
    return BACKENDS[split_device(device)[0]]


def split_device(device: str) -> tuple[str, int]:
    """Name of the backend and index of the GPU: ``"cuda:1"`` → ``("cuda", 1)``; 0 without one.

    Raises:
        ConfigurationError: there is no such device, or the index is not one.
    """
    name, colon, index = device.partition(":") if isinstance(device, str) else ("", "", "")
    if name not in BACKENDS:
        raise ConfigurationError(f"device is {shortened(device)}; known: {', '.join([*DEVICES, AUTO])}")
    if not colon:
        return name, 0
    if BACKENDS[name].on_cpu:
        raise ConfigurationError(f"device is {shortened(device)}, but {name} is one device; leave the index out")
    if not INDEX.fullmatch(index):
        raise ConfigurationError(f"device is {shortened(device)}; expected the index of a GPU, as in '{name}:1'")
    return name, int(index)


def targets_on(device: str) -> tuple[str, str]:
    """Targets of the graphs that run on `device`, the preferred one first. A target stands for its own devices."""
    return (device if device in TARGETS else backend_of(device).target, ANY_TARGET)


def resolve_device(device: str) -> str:
    """`device`, checked; for ``"auto"`` ``"cuda"`` if its driver and ONNX Runtime's provider are there, else ``"cpu"``.

    The choice is logged as a warning: a service should name its device. ``"auto"`` takes no device that
    runs engines, which not every bundle has, nor ``"openvino"``, which rounds otherwise than ``"cpu"``.

    Raises:
        ConfigurationError: there is no such device.
    """
    if device != AUTO:
        split_device(device)
        return device
    chosen = "cuda" if _has_cuda() else "cpu"
    logger.warning("device 'auto' is %s here; name a device to get that one or an error", chosen)
    return chosen


def _has_cuda() -> bool:
    try:
        onnxruntime = import_onnxruntime()
        ctypes.CDLL("libcuda.so.1")
    except (BackendUnavailableError, OSError):
        return False
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
