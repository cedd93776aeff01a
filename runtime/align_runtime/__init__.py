"""The runtime of align-onnx: opens a bundle and answers with embeddings. No torch, no onnx.

::

    with align_runtime.load("build/align-tiny") as model:
        images = model.embed_images(["cat.jpg"])            # (1, dim) float32, unit rows
        texts = model.embed_text(["a cat", "a dog"])        # (2, dim)
        logits = model.similarity(images, texts)            # (1, 2)
        model.classify(["cat.jpg"], ["cat", "dog"])         # probabilities (1, 2)
"""

from __future__ import annotations

from align_runtime.bundle import Bundle
from align_runtime.errors import (
    AlignError,
    BackendUnavailableError,
    BuildError,
    BundleError,
    CheckpointError,
    ConfigurationError,
    InputError,
    ParityError,
    PrecisionError,
)
from align_runtime.images import ImageInput
from align_runtime.model import Model, load

__all__ = [
    "AlignError",
    "BackendUnavailableError",
    "BuildError",
    "Bundle",
    "BundleError",
    "CheckpointError",
    "ConfigurationError",
    "ImageInput",
    "InputError",
    "Model",
    "ParityError",
    "PrecisionError",
    "load",
]
