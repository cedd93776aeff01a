"""Exports a tower with `torch.onnx.export` alone: the baseline for speed and for what engines accept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from align_exporter.baselines import PlainTextTower
from align_reference.model import AlignModel, unit_length

BATCH, MAX_SEQUENCE = torch.export.Dim("batch"), 64


class PlainVisionTower(nn.Module):
    """transformers' vision tower, whose pooling window of `hidden_dim` is larger than the feature map."""

    def __init__(self, model: transformers.AlignVisionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return unit_length(self.model(pixel_values).pooler_output.flatten(1))


def export_text_plainly(model: AlignModel, file: Path) -> Path:
    """Writes `file`: `input_ids`, `attention_mask` int64 (batch, sequence) → float32 (batch, dim), unit length."""
    sizes = {0: BATCH, 1: torch.export.Dim("sequence", max=MAX_SEQUENCE)}
    examples = {name: torch.ones(2, 7, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    return _export(PlainTextTower(model), examples, dict.fromkeys(examples, sizes), file)


def export_vision_plainly(model: transformers.AlignVisionModel, file: Path) -> Path:
    """Writes `file`: `pixel_values` float32 (batch, 3, size, size) → float32 (batch, dim), unit length."""
    size = model.config.image_size
    examples = {"pixel_values": torch.zeros(2, 3, size, size)}
    return _export(PlainVisionTower(model), examples, {"pixel_values": {0: BATCH}}, file)


def _export(tower: nn.Module, examples: Mapping[str, Tensor], dynamic: dict[str, Any], file: Path) -> Path:
    program = torch.onnx.export(
        tower.eval(), tuple(examples.values()), dynamo=True, dynamic_shapes=dynamic, verbose=False
    )
    assert program is not None
    program.save(file)
    return file
