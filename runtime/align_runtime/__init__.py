"""The runtime of align-onnx: opens a bundle and computes embeddings, without torch or onnx.

::

    with align_runtime.load("build/align-tiny") as model:
        images = model.embed_images(["cat.jpg"])            # (1, dim) float32, unit rows
        texts = model.embed_texts(["a cat", "a dog"])       # (2, dim)
        model.logits(images, texts)                         # (1, 2), cosine / temperature
        model.classify(["cat.jpg"], ["cat", "dog"])         # (1, 2), probabilities

Logging: loggers are named after their modules, below ``align_runtime``, and nothing is configured.
``align_runtime.loading`` logs at INFO what `load` opened, ``align_runtime.devices`` at WARNING what ``"auto"`` chose,
``align_runtime.backends.cuda`` at INFO graphs that run without CUDA graphs, ``align_runtime.backends.tensorrt.log``
TensorRT's own messages, at WARNING and DEBUG. To see them::

    logging.basicConfig()
    logging.getLogger("align_runtime").setLevel(logging.INFO)
"""

import logging

from align_runtime.bundle import Bundle
from align_runtime.devices import Device
from align_runtime.embedded_rows import EmbeddedRows
from align_runtime.errors import (
    AlignError,
    BackendUnavailableError,
    BuildError,
    BundleError,
    CheckpointError,
    ConfigurationError,
    DeviceError,
    InputError,
    ParityError,
    PrecisionError,
)
from align_runtime.images import ImageInput
from align_runtime.model import Model, load
from align_runtime.model_info import ModelInfo

__all__ = [
    "AlignError",
    "BackendUnavailableError",
    "BuildError",
    "Bundle",
    "BundleError",
    "CheckpointError",
    "ConfigurationError",
    "Device",
    "DeviceError",
    "EmbeddedRows",
    "ImageInput",
    "InputError",
    "Model",
    "ModelInfo",
    "ParityError",
    "PrecisionError",
    "__version__",
    "load",
]

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())
