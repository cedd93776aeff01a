"""The two towers as they are traced: from pixels or token ids to unit-length embeddings."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from align_reference.model import AlignModel, unit_length
from align_reference.text import attention_bias


class VisionTower(nn.Module):
    """`pixels` uint8 (B, H, W, 3) RGB → `image_embeds` float32 (B, dim), unit length, normalization included.

    Args:
        model: the reference.
        scale, offset: float64 (3,); per channel, a pixel is normalized to ``pixel · scale + offset``.
    """

    def __init__(self, model: AlignModel, scale: np.ndarray, offset: np.ndarray) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.scale = nn.Buffer(torch.tensor(scale, dtype=torch.float32).reshape(1, 3, 1, 1))
        self.offset = nn.Buffer(torch.tensor(offset, dtype=torch.float32).reshape(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        # The Cast comes first because TensorRT accepts a uint8 input only if a Cast reads it. For ONNX Runtime's CPU
        # kernels the order does not matter: both steps take 0.08 of 196 ms at batch 1 and 0.9 of 1750 ms at batch 8.
        values = pixels.to(torch.float32).permute(0, 3, 1, 2)
        return unit_length(self.vision_model(values * self.scale + self.offset).pooler_output)


class NormalizedVisionTower(nn.Module):
    """`pixel_values` float32 (B, 3, H, W), normalized by the caller → `image_embeds` float32 (B, dim), unit length."""

    def __init__(self, model: AlignModel) -> None:
        super().__init__()
        self.vision_model = model.vision_model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return unit_length(self.vision_model(pixel_values).pooler_output)


class TextTower(nn.Module):
    """`input_ids`, `attention_mask` int64 (B, S) → `text_embeds` float32 (B, dim), unit length.

    The embedding depends only on the first token of the last layer, so the last layer computes only that row; it still
    attends to all tokens. BERT's pooler is not used and not exported.
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
