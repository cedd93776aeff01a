"""What an engine runs on: the machine that TensorRT built it on, or the GPUs that TensorRT for RTX built it for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.json_files import of_kind, require, text
from align_runtime.versions import version

TENSORRT, RTX = "tensorrt", "rtx"
TITLES = {TENSORRT: "TensorRT", RTX: "TensorRT for RTX"}
BUILD = {
    TENSORRT: "build one on this machine: align-export … --engine",
    RTX: "build one, on any machine: align-export … --engine --engine-runtime rtx",
}
# What TensorRT for RTX builds for. An engine that holds Turing too has kernels for Turing alone, which all GPUs run.
TURING = "7.5"
CAPABILITIES = (TURING, "8.0", "8.6", "8.9", "12.0", "12.1")
DEFAULT_CAPABILITIES = ("8.6", "8.9", "12.0")


@dataclass(frozen=True)
class Machine:
    """The hardware and software that an engine of TensorRT depends on.

    Attributes:
        gpu: its name, e.g. ``"NVIDIA H100 80GB HBM3"``.
        compute_capability: e.g. ``"9.0"``.
        driver: the newest CUDA version that the driver supports, e.g. ``"13.0"``.
        tensorrt: version, e.g. ``"11.4.0.106"``.
    """

    gpu: str
    compute_capability: str
    driver: str
    tensorrt: str

    runtime: ClassVar[str] = TENSORRT

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> Machine:
        machine = cls(
            gpu=text(where, values, "gpu"),
            compute_capability=text(where, values, "compute_capability"),
            driver=text(where, values, "driver"),
            tensorrt=text(where, values, "tensorrt"),
        )
        for value in (machine.compute_capability, machine.driver, machine.tensorrt):
            _check_version(value, where)
        return machine

    @property
    def place(self) -> str:
        """What tells its engines apart in file names: ``"nvidia-h100-80gb-hbm3.11.4.0.106"``."""
        return f"{self.gpu_name}.{self.tensorrt}"

    @property
    def gpu_name(self) -> str:
        """The GPU as in file names: ``"nvidia-h100-80gb-hbm3"``."""
        return re.sub(r"[^a-z0-9]+", "-", self.gpu.lower()).strip("-")

    @property
    def title(self) -> str:
        return f"built on {self.gpu} by TensorRT {self.tensorrt}"

    @property
    def facts(self) -> Mapping[str, str]:
        """What an engine is stale with another value of."""
        return {"GPU": self.gpu, "compute capability": self.compute_capability, "TensorRT": self.tensorrt}


@dataclass(frozen=True)
class RtxTarget:
    """What an engine of TensorRT for RTX depends on. It is built without a GPU.

    Attributes:
        compute_capabilities: of the GPUs that it was built for, of `CAPABILITIES`, ascending.
        tensorrt: version of TensorRT for RTX, e.g. ``"1.7.1.116"``.
    """

    compute_capabilities: tuple[str, ...]
    tensorrt: str

    runtime: ClassVar[str] = RTX

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> RtxTarget:
        listed = require(where, values, "compute_capabilities", list)
        try:
            capabilities = checked_capabilities(tuple(of_kind(where, value, str) for value in listed))
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from None
        target = cls(capabilities, text(where, values, "tensorrt"))
        _check_version(target.tensorrt, where)
        return target

    @property
    def place(self) -> str:
        """``"rtx-sm86-sm89-sm120.1.7.1.116"``."""
        names = (f"sm{each.replace('.', '')}" for each in self.compute_capabilities)
        return f"rtx-{'-'.join(names)}.{self.tensorrt}"

    @property
    def title(self) -> str:
        return (
            f"built for compute capability {', '.join(self.compute_capabilities)} by TensorRT for RTX {self.tensorrt}"
        )

    @property
    def facts(self) -> Mapping[str, str]:
        """What an engine is stale with another value of."""
        return {"compute capability": ", ".join(self.compute_capabilities), "TensorRT for RTX": self.tensorrt}


Target = Machine | RtxTarget
TARGET_TYPES: Mapping[str, type[Machine] | type[RtxTarget]] = {row.runtime: row for row in (Machine, RtxTarget)}


def checked_capabilities(values: tuple[str, ...]) -> tuple[str, ...]:
    """`values`, compute capabilities that TensorRT for RTX builds for.

    Raises:
        ConfigurationError: they are others, or not ascending.
    """
    if not values or list(values) != [known for known in CAPABILITIES if known in values]:
        raise ConfigurationError(
            f"compute capabilities are {shortened(','.join(values))}; expected some of {','.join(CAPABILITIES)}, "
            "ascending"
        )
    return values


def _check_version(value: str, where: str) -> None:
    try:
        version(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None
