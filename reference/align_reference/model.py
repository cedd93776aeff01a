"""ALIGN: two towers, one space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_reference.config import AlignConfig
from align_reference.text import TextModel
from align_reference.vision import VisionModel

LABEL_SMOOTHING = 0.1


@dataclass(frozen=True)
class AlignOutput:
    """What `AlignModel.forward` returns.

    Attributes:
        image_embeds: float (images, dim), unit length.
        text_embeds: float (texts, dim), unit length.
        logits_per_text: float (texts, images), cosine divided by the temperature.
        logits_per_image: its transpose.
        loss: scalar, or None where it was not asked for.
    """

    image_embeds: Tensor
    text_embeds: Tensor
    logits_per_text: Tensor
    logits_per_image: Tensor
    loss: Tensor | None


class AlignModel(nn.Module):
    """The whole model, in the state-dict layout of transformers' `AlignModel`."""

    def __init__(self, config: AlignConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = TextModel(config.text)
        self.vision_model = VisionModel(config.vision)
        self.text_projection = nn.Linear(config.text.hidden_size, config.projection_dim)
        self.temperature = nn.Parameter(torch.tensor(config.temperature_init_value))

    def get_text_features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Projected first token, float (B, dim), not normalised. Arguments as in `TextModel`."""
        hidden = self.text_model(input_ids, attention_mask, token_type_ids, position_ids)
        return self.text_projection(hidden[:, 0])

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Pooled features, float (B, dim), not normalised, of `pixel_values` float (B, 3, H, W)."""
        return self.vision_model(pixel_values)

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        return_loss: bool = False,
    ) -> AlignOutput:
        """Embeddings and logits of texts against images; the loss needs as many texts as images, pair by pair."""
        image_embeds = unit_length(self.get_image_features(pixel_values))
        text_embeds = unit_length(self.get_text_features(input_ids, attention_mask, token_type_ids, position_ids))
        logits_per_text = text_embeds @ image_embeds.T / self.temperature
        return AlignOutput(
            image_embeds=image_embeds,
            text_embeds=text_embeds,
            logits_per_text=logits_per_text,
            logits_per_image=logits_per_text.T,
            loss=contrastive_loss(logits_per_text) if return_loss else None,
        )


def unit_length(features: Tensor) -> Tensor:
    """Rows of `features` (B, dim) divided by their L2 norm."""
    return features / features.norm(p=2, dim=-1, keepdim=True)


def contrastive_loss(logits_per_text: Tensor) -> Tensor:
    """Mean of both directions' cross entropy over the diagonal of (n, n), label smoothing 0.1 (ALIGN, section 4.1)."""
    pairs = torch.arange(len(logits_per_text), device=logits_per_text.device)
    text_loss = F.cross_entropy(logits_per_text, pairs, label_smoothing=LABEL_SMOOTHING)
    image_loss = F.cross_entropy(logits_per_text.T, pairs, label_smoothing=LABEL_SMOOTHING)
    return (text_loss + image_loss) / 2
