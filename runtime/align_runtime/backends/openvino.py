"""Graphs on an Intel CPU through OpenVINO, as a plugin provider of ONNX Runtime.

OpenVINO computes FP32 graphs in bfloat16 by default where the processor has it. Here the precision is always named: one
of `HINTS`. It also has plugins for Intel's GPUs and NPUs, which nothing here takes: none has been at hand to try.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from align_runtime.backends.onnxruntime import OnnxRuntimeRunner
from align_runtime.errors import BackendUnavailableError
from align_runtime.memory import MemoryUse
from align_runtime.onnxruntime_import import import_onnxruntime
from align_runtime.processors import available_cores

INSTALL = "pip install -U 'align-onnx[openvino]'"
# What the MACs of FP32 graphs are computed in, by the precision that is asked for: OpenVINO's INFERENCE_PRECISION_HINT.
HINTS: Mapping[str, str] = {"fp32": "f32", "bf16": "bf16"}
CAPABILITIES, BF16 = "OPTIMIZATION_CAPABILITIES", "BF16"
_registering = threading.Lock()
_registered: set[str] = set()  # libraries of providers, which are never unloaded


def open_file(file: Path, threads: int | None, memory: MemoryUse, precision: str, streams: int) -> OnnxRuntimeRunner:
    """Loads an ONNX file; see `align_runtime.backends.open_runner`."""
    onnxruntime = import_onnxruntime()
    device = _cpu(onnxruntime)
    if precision == "bf16" and BF16 not in device.ep_metadata.get(CAPABILITIES, "").split():
        raise BackendUnavailableError(
            "precision is 'bf16', but this processor has no bfloat16 (avx512_bf16 or amx_bf16), and OpenVINO would "
            "compute in float32; load with precision='fp32'"
        )

    def configure(options: Any) -> None:
        # An operator that OpenVINO does not take is an error, and is not computed by another provider.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        config = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "NUM_STREAMS": str(streams),
            "INFERENCE_NUM_THREADS": str(streams * (threads or available_cores())),
            "ENABLE_CPU_PINNING": "NO",  # the other tower, streams and processes would be pinned to the same cores
        }
        options.add_provider_for_devices([device], {"load_config": json.dumps({"CPU": config})})

    return OnnxRuntimeRunner(file, threads, memory, configure)


def _cpu(onnxruntime: Any) -> Any:
    """The CPU as a device of OpenVINO's provider, whose library is loaded once in a process."""
    plugin = _import_plugin()
    with _registering:
        found = _devices(onnxruntime, plugin)
        if not found and plugin.get_library_path() not in _registered:
            try:
                onnxruntime.register_execution_provider_library(plugin.get_ep_name(), plugin.get_library_path())
            except Exception as error:  # ONNX Runtime's exceptions have no common base but Exception
                raise BackendUnavailableError(
                    f"onnxruntime {onnxruntime.__version__} cannot load OpenVINO's provider ({error}); install them "
                    f"anew: {INSTALL}"
                ) from None
            _registered.add(plugin.get_library_path())
            found = _devices(onnxruntime, plugin)
    if not found:
        raise BackendUnavailableError(
            "OpenVINO's provider takes no processor of this machine (it takes Intel's); load with device='cpu'"
        )
    return found[0]


def _devices(onnxruntime: Any, plugin: ModuleType) -> list[Any]:
    return [
        device
        for device in onnxruntime.get_ep_devices()
        if device.ep_name == plugin.get_ep_name() and device.ep_metadata.get("ov_device") == "CPU"
    ]


def _import_plugin() -> Any:
    try:
        import onnxruntime_ep_openvino
    except ImportError as error:
        raise BackendUnavailableError(
            f"onnxruntime_ep_openvino cannot be imported ({error}); install it with: {INSTALL}"
        ) from None
    return onnxruntime_ep_openvino
