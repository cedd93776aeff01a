"""The two towers as they are exported: from what a service has in hand to unit-length embeddings."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from align_reference.model import AlignModel, unit_length
from align_reference.text import attention_bias


class VisionTower(nn.Module):
    """`pixels` uint8 (B, H, W, 3) RGB → `image_embeds` float32 (B, dim), unit length. Normalisation is inside.

    Args:
        model: the reference.
        scale, offset: float64 (3,); a pixel becomes ``pixel · scale + offset`` per channel.
    """

    def __init__(self, model: AlignModel, scale: np.ndarray, offset: np.ndarray) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.scale = nn.Buffer(torch.tensor(scale, dtype=torch.float32).reshape(1, 3, 1, 1))
        self.offset = nn.Buffer(torch.tensor(offset, dtype=torch.float32).reshape(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        # Cast first, because TensorRT takes bytes only where a Cast follows at once. To ONNX Runtime's CPU kernels the
        # order is all one: both steps take 0.08 ms of the 196 ms of one image, 0.9 ms of the 1750 ms of eight.
        values = pixels.to(torch.float32).permute(0, 3, 1, 2)
        return unit_length(self.vision_model(values * self.scale + self.offset).pooler_output)


class NormalizedVisionTower(nn.Module):
    """`pixel_values` float32 (B, 3, H, W), normalised by the caller → `image_embeds` float32 (B, dim), unit length."""

    def __init__(self, model: AlignModel) -> None:
        super().__init__()
        self.vision_model = model.vision_model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return unit_length(self.vision_model(pixel_values).pooler_output)


class TextTower(nn.Module):
    """`input_ids`, `attention_mask` int64 (B, S) → `text_embeds` float32 (B, dim), unit length.

    Only the first token of the last layer reaches the embedding, so the last layer computes that row alone (it still
    attends to all tokens); BERT's pooler is not on the way and is left out.
    """

    def __init__(self, model: AlignModel) -> None:
        super().__init__()
        self.text_model = model.text_model
        self.text_projection = model.text_projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.text_model.embeddings(input_ids)
        bias = attention_bias(attention_mask)
        *layers, last = self.text_model.encoder.layer
        for layer in layers:
            hidden = layer(hidden, hidden, bias)
        first = last(hidden[:, :1], hidden, bias)  # (B, 1, H)
        return unit_length(self.text_projection(first[:, 0]))
