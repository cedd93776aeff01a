"""ALIGN: a text tower and a vision tower that share one embedding space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_reference.config import AlignConfig
from align_reference.text import TextModel, TextOutput
from align_reference.vision import VisionModel, VisionOutput
from align_runtime.errors import ConfigurationError, InputError

LABEL_SMOOTHING = 0.1
MAX_PARAMETERS = 1 << 31  # twelve times ALIGN, 8.6 GB in float32; a forged configuration cannot ask for terabytes


@dataclass(frozen=True)
class AlignOutput:
    """Result of `AlignModel`, with the field names of transformers.

    Attributes:
        image_embeds: float (images, dim), unit length.
        text_embeds: float (texts, dim), unit length.
        logits_per_text: float (texts, images), cosine similarity divided by the temperature.
        logits_per_image: its transpose.
        loss: contrastive loss, a scalar; None unless requested.
        text_model_output, vision_model_output: outputs of the two towers.
    """

    image_embeds: Tensor
    text_embeds: Tensor
    logits_per_text: Tensor
    logits_per_image: Tensor
    loss: Tensor | None
    text_model_output: TextOutput
    vision_model_output: VisionOutput


class AlignModel(nn.Module):
    """ALIGN, with the state-dict keys of transformers' `AlignModel`."""

    def __init__(self, config: AlignConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = TextModel(config.text)
        self.vision_model = VisionModel(config.vision)
        self.text_projection = nn.Linear(config.text.hidden_size, config.projection_dim)
        self.temperature = nn.Parameter(torch.tensor(config.temperature_init_value))

    def get_text_features(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """The projected first token, float (B, dim), before L2 normalization. Arguments as for `TextModel`.

        A plain tensor: what transformers returns as `pooler_output` of this method.
        """
        output = self.text_model(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        return self.text_projection(output.last_hidden_state[:, 0])

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """The pooled features, float (B, dim), before L2 normalization, of `pixel_values` float (B, 3, H, W).

        A plain tensor: what transformers returns as `pooler_output` of this method.
        """
        return self.vision_model(pixel_values).pooler_output

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        return_loss: bool = False,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> AlignOutput:
        """Embeds texts and images and compares each text with each image.

        Args:
            pixel_values: float (B, 3, H, W), as for `VisionModel`.
            return_loss: whether to compute `contrastive_loss`; text i then belongs to image i.
            output_hidden_states: whether to return the hidden states of both towers.
            output_attentions: whether to return the attention weights of the text tower.
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds: as for `TextModel`.

        Raises:
            InputError: no `pixel_values`; both or neither of `input_ids` and `inputs_embeds`.
        """
        if pixel_values is None:
            raise InputError("pixel_values was not given; use get_text_features to embed texts alone")
        vision = self.vision_model(pixel_values, output_hidden_states)
        text = self.text_model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_hidden_states,
            output_attentions,
        )
        image_embeds = unit_length(vision.pooler_output)
        text_embeds = unit_length(self.text_projection(text.last_hidden_state[:, 0]))
        logits_per_text = text_embeds @ image_embeds.T / self.temperature
        return AlignOutput(
            image_embeds=image_embeds,
            text_embeds=text_embeds,
            logits_per_text=logits_per_text,
            logits_per_image=logits_per_text.T,
            loss=contrastive_loss(logits_per_text) if return_loss else None,
            text_model_output=text,
            vision_model_output=vision,
        )


def empty_model(config: AlignConfig) -> AlignModel:
    """A model on PyTorch's meta device: its weights have shapes, but no values, and take no memory.

    Raises:
        ConfigurationError: it would have more than `MAX_PARAMETERS`.
    """
    with torch.device("meta"):
        model = AlignModel(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > MAX_PARAMETERS:
        raise ConfigurationError(
            f"the configuration describes a model of {count:,} parameters; at most {MAX_PARAMETERS:,} are supported "
            "(the published ALIGN has 172,000,000)"
        )
    return model


def unit_length(features: Tensor) -> Tensor:
    """Rows of `features` (B, dim) divided by their L2 norm."""
    return features / features.norm(p=2, dim=-1, keepdim=True)


def contrastive_loss(logits_per_text: Tensor) -> Tensor:
    """Mean of the two cross entropies (text → image, image → text) of logits (n, n), a scalar.

    The diagonal holds the matching pairs. Label smoothing 0.1. Source: ALIGN (arXiv 2102.05918), section 4.1.
    """
    pairs = torch.arange(len(logits_per_text), device=logits_per_text.device)
    text_loss = F.cross_entropy(logits_per_text, pairs, label_smoothing=LABEL_SMOOTHING)
    image_loss = F.cross_entropy(logits_per_text.T, pairs, label_smoothing=LABEL_SMOOTHING)
    return (text_loss + image_loss) / 2
