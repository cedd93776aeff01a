"""How a bundle is served: one value, checked once and handed on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from align_runtime.devices import resolve_device, split_device
from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.graph_entry import TOWERS
from align_runtime.image_options import DEFAULT_IMAGES, ImageOptions

PYTHON, ONNXRUNTIME, TENSORRT = "python", "onnxruntime", "tensorrt"
# Triton's backends: the devices that a model of each can be written for, the default first; None for all.
BACKENDS: Mapping[str, tuple[str, ...] | None] = {
    PYTHON: None,
    ONNXRUNTIME: ("cpu", "cuda"),
    TENSORRT: ("tensorrt",),
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")  # such a name, and what is added to it
RANGES = {
    "instances": (1, 1024),
    "threads": (1, 1024),
    "max_batch": (1, 4096),
    "queue_delay": (0, 10_000_000),
    "queue_size": (0, 1_000_000),
    "keep": (1, 1000),
}


@dataclass(frozen=True)
class ServingOptions:
    """What ``align-triton`` takes after its paths.

    Attributes:
        backend: one of `BACKENDS`.
        name: the names of the models begin with it.
        towers: those that get a model.
        precision: variant of the graphs.
        device: where the models run; None for the default of the backend.
        instances: copies of each model that run at once, on a GPU on each.
        threads: of one instance on a CPU; None for all cores.
        max_batch: most rows of a batch; None for what suits the device.
        queue_delay: microseconds that a request waits for others, so that they run as one batch.
        queue_size: requests that may wait for a model, after which Triton refuses others; 0 for any number.
        keep: newest versions of a model that stay in the repository, the new one among them.
        gpu: the GPU, as ``align-inspect`` names it, whose TensorRT engine is served; None where there is one alone.
        link: whether large files are hard links to those of the bundle.
        images: which images are decoded, by models of the Python backend.

    Raises:
        ConfigurationError: a value is unknown or out of range, or does not go with the backend.
    """

    backend: str = PYTHON
    name: str = "align"
    towers: tuple[str, ...] = TOWERS
    precision: str = "fp32"
    device: str | None = None
    instances: int = 1
    threads: int | None = None
    max_batch: int | None = None
    queue_delay: int = 1000
    queue_size: int = 0
    keep: int = 2
    gpu: str | None = None
    link: bool = False
    images: ImageOptions = DEFAULT_IMAGES

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ConfigurationError(f"backend is {shortened(self.backend)}; known: {', '.join(BACKENDS)}")
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise ConfigurationError(
                f"name is {shortened(self.name)}; expected letters, digits, '_', '-' and '.', at most 64"
            )
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not least <= value <= most):
                raise ConfigurationError(f"{name} is {shortened(value)}; expected {least} to {most}")
        devices = BACKENDS[self.backend]
        device = self.device or (devices or ("cpu",))[0]
        if split_device(resolve_device(device))[1] or ":" in device:
            raise ConfigurationError(f"device is {shortened(device)}; Triton gives each instance its GPU: name none")
        if devices is not None and device not in devices:
            raise ConfigurationError(
                f"device is {device!r}, but Triton's {self.backend} backend gets models for {' or '.join(devices)}"
            )
        object.__setattr__(self, "device", device)
        if self.gpu is not None and self.backend != TENSORRT:
            raise ConfigurationError(f"gpu is for the {TENSORRT} backend, not for {self.backend}; leave it out")
        if self.threads is not None and self.on_gpu:
            raise ConfigurationError(f"threads is for the CPU, not for {device}; leave it out")

    @property
    def on_gpu(self) -> bool:
        """Whether instances run on GPUs."""
        return self.device not in ("cpu", "openvino")
