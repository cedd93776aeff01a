"""The reference: ALIGN in PyTorch, and the loader of its checkpoints.

::

    from align_reference import load_model

    model = load_model("reference/align-tiny")                        # a folder, or a hub id: "kakaobrain/align-base"
    output = model(input_ids, pixel_values, attention_mask)           # int64 (n, S), float (m, 3, H, W), int64 (n, S)
    output.text_embeds, output.image_embeds                           # (n, dim), (m, dim): float32, unit rows
    output.logits_per_image.softmax(dim=1)                            # (m, n), probabilities of the texts per image
    model.text_model(input_ids, output_attentions=True).attentions    # one (n, heads, S, S) per layer

Names are imported when they are first used: finding a checkpoint (`resolve`) takes no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align_reference.checkpoint import load_model
    from align_reference.config import AlignConfig, TextConfig, VisionConfig
    from align_reference.model import AlignModel, AlignOutput
    from align_reference.source import CheckpointSource, resolve
    from align_reference.text import TextModel, TextOutput
    from align_reference.vision import VisionModel, VisionOutput

__all__ = [
    "AlignConfig",
    "AlignModel",
    "AlignOutput",
    "CheckpointSource",
    "TextConfig",
    "TextModel",
    "TextOutput",
    "VisionConfig",
    "VisionModel",
    "VisionOutput",
    "load_model",
    "resolve",
]

_MODULES = {
    "checkpoint": ("load_model",),
    "config": ("AlignConfig", "TextConfig", "VisionConfig"),
    "model": ("AlignModel", "AlignOutput"),
    "source": ("CheckpointSource", "resolve"),
    "text": ("TextModel", "TextOutput"),
    "vision": ("VisionModel", "VisionOutput"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"align_reference.{module}"), name)
    raise AttributeError(f"module 'align_reference' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
