"""Checkpoints with the FP32 results of another one, whose activations overflow FP16.

Where a linear operator follows another one, a factor on the first and its inverse on the second cancel. With powers of
two they cancel exactly.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from align_reference.config import AlignConfig
from align_reference.vision import block_shapes

FACTOR = 2.0**16


def overflowing(checkpoint: Path, folder: Path, factor: float = FACTOR, stage: int = -2) -> Path:
    """Copies `checkpoint` to `folder` with some activations `factor` times as large.

    These are the values in the attention of the first text layer and the outputs of vision stage `stage`.
    """
    shutil.copytree(checkpoint, folder)
    config = AlignConfig.from_file(folder / "config.json")
    weights = load_file(folder / "model.safetensors")
    _scale_values(weights, factor)
    _scale_stage(weights, config, factor, stage)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _scale_values(weights: dict[str, Tensor], factor: float) -> None:
    """Value projection · f, output projection / f; the weighted mean between them is linear."""
    layer = "text_model.encoder.layer.0.attention"
    for name in ("weight", "bias"):
        weights[f"{layer}.self.value.{name}"] *= factor
    weights[f"{layer}.output.dense.weight"] /= factor


def _scale_stage(weights: dict[str, Tensor], config: AlignConfig, factor: float, stage: int) -> None:
    """Projections of one stage · f, the expansions that read them / f; both summands of a residual get the factor."""
    shapes = list(block_shapes(config.vision))
    starts = [index for index, shape in enumerate(shapes) if not shape.residual]
    first, end = starts[stage], starts[stage + 1]
    for index in range(first, end):
        for name in ("weight", "bias"):
            weights[f"vision_model.encoder.blocks.{index}.projection.project_bn.{name}"] *= factor
        weights[f"vision_model.encoder.blocks.{index + 1}.expansion.expand_conv.weight"] /= factor
