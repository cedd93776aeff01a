"""What a measured choice depends on: the processor, the number of cores, the GPUs, and what computes on them.

A setting that is the fastest on one machine need not be so on another, and not with another ONNX Runtime.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.json_files import check_keys, number, require, short_text, text
from align_runtime.processors import MAX_THREADS, available_cores, processor_name

# Packages that compute; of those that are installed.
COMPUTING = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-ep-openvino", "tensorrt", "tensorrt-rtx-cu13-bindings")
SECONDS = 20  # that nvidia-smi may take; without persistence mode it loads the driver


@dataclass(frozen=True)
class MachineKey:
    """A machine, as far as speed depends on it.

    Attributes:
        processor: its model, and its vector extensions.
        cores: that this process may use, by its affinity and the quotas of its control groups.
        gpu: names of the NVIDIA GPUs, each once; None without one.
        versions: of `COMPUTING`.
    """

    processor: str
    cores: int
    gpu: str | None
    versions: Mapping[str, str]

    @classmethod
    def here(cls) -> MachineKey:
        """This machine, for this process."""
        names = nvidia_smi("name")
        found = ((package, installed_version(package)) for package in COMPUTING)
        return cls(
            processor_name(),
            available_cores(),
            " + ".join(dict.fromkeys(names)) or None,
            {package: number for package, number in found if number is not None},
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> MachineKey:
        """Reads what `to_json` made. Raises ConfigurationError where it is something else."""
        check_keys(where, values, cls.__dataclass_fields__)
        versions = require(where, values, "versions", dict)
        for package in versions:
            if package not in COMPUTING:
                raise ConfigurationError(f"{where}: unknown package {shortened(package)} in versions")
        gpu = require(where, values, "gpu", (str, type(None)))
        return cls(
            processor=text(where, values, "processor"),
            cores=number(where, values, "cores", int, 1, MAX_THREADS),
            gpu=None if gpu is None else short_text(f"{where}: gpu", gpu),
            versions={package: text(f"{where}: versions", versions, package) for package in versions},
        )

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    def differences(self, here: MachineKey) -> str:
        """How `here` differs from this machine, in a few words: ``"cores 4, here 2"``; empty where it does not."""
        mine, others = _facts(self), _facts(here)
        return "; ".join(
            f"{name} {shortened(mine.get(name), 60)}, here {shortened(others.get(name), 60)}"
            for name in dict.fromkeys([*mine, *others])
            if mine.get(name) != others.get(name)
        )


def _facts(machine: MachineKey) -> dict[str, object]:
    return {"processor": machine.processor, "cores": machine.cores, "gpu": machine.gpu, **machine.versions}


def installed_version(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def nvidia_smi(fields: str) -> list[str]:
    """What nvidia-smi says about each GPU, e.g. of ``"name,driver_version"``; empty where there is none."""
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []
