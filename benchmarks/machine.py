"""What a measurement was made on."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

from align_exporter.freshness import tool_version

PACKAGES = ("torch", "onnx", "onnxruntime", "openvino", "numpy", "pillow", "tokenizers")


def describe() -> dict[str, object]:
    """Processor, cores, system, versions and date, for the head of a result file."""
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {package: tool_version(package) for package in PACKAGES},
    }


def _processor() -> str:
    """The model's name and the widest vector extension, which decides which kernels run."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.partition(":")[::2] for line in lines if ":" in line)
    values = {key.strip(): value.strip() for key, value in fields.items()}
    flags = values.get("flags", "").split()
    widest = next((flag for flag in ("avx512_vnni", "avx512f", "avx2") if flag in flags), "no AVX2")
    return f"{values.get('model name', platform.processor())} ({widest})"
