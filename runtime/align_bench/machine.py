"""The machine of a measurement: hardware, versions, and settings that affect speed."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path
from typing import Any

from align_runtime.devices import backend_of
from align_runtime.machine_key import installed_version, nvidia_smi
from align_runtime.processors import available_cores, processor_name

PACKAGES = (
    "align-onnx",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-ep-openvino",
    "openvino",
    "pillow",
    "tensorrt",
    "tokenizers",
    "torch",
)
VARIABLES = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM", "MALLOC_ARENA_MAX", "LD_PRELOAD")


def describe(device: str) -> dict[str, Any]:
    """The machine as JSON values; None for what the system does not report.

    Args:
        device: of the measurement, or several with commas between them; if one is a GPU's, the GPU is described, too.
    """
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds"),
        "device": device,
        "processor": processor_name(),
        "cores": available_cores(),
        "governor": _line(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "gpu": None if all(backend_of(name).on_cpu for name in device.split(", ")) else _gpu(),
        "versions": {package: found for package in PACKAGES if (found := installed_version(package))},
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def load_average() -> float | None:
    """Processes that wanted a core, on average over the last minute; None where the system does not count them."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _gpu() -> str | None:
    """Name, driver version, maximum clock and persistence mode of the first GPU."""
    return next(iter(nvidia_smi("name,driver_version,clocks.max.sm,persistence_mode")), None)


def _line(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return None
