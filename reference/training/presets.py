"""Architectures and training schedules by name. The architectures are configurations of `align_reference`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from align_reference.config import AlignConfig, TextConfig, VisionConfig


@dataclass(frozen=True)
class ImageSize:
    """Preprocessing: resize to `resize` × `resize` pixels, then centre crop to `crop` × `crop`."""

    resize: int
    crop: int


@dataclass(frozen=True)
class Phase:
    """A part of training with its own images, learning-rate schedule and optimiser state.

    Attributes:
        steps: number of optimiser steps.
        pool_size: number of images drawn.
        digit_share: share of the images that show a digit rather than a shape, 0 to 1.
        learning_rate: peak, after the warm-up.
    """

    steps: int
    pool_size: int
    digit_share: float
    learning_rate: float


@dataclass(frozen=True)
class Preset:
    """Everything that `training.train` needs besides a seed.

    Attributes:
        text, vision: the towers; `config` sets the vocabulary size of `text`.
        image: preprocessing.
        batch_size: images per step.
        phases: in order.
    """

    text: TextConfig
    vision: VisionConfig
    image: ImageSize
    batch_size: int
    phases: tuple[Phase, ...]

    def config(self, vocab_size: int) -> AlignConfig:
        """The configuration for a vocabulary; `projection_dim` is the width of the vision tower's output."""
        text = TextConfig(**{**vars(self.text), "vocab_size": vocab_size})
        return AlignConfig(
            text=text, vision=self.vision, projection_dim=self.vision.output_dim, temperature_init_value=0.1
        )


MAX_TOKENS = 32  # the longest caption has 18

# A reduced table of B7 with all its features: expand ratio 1 with and without a residual, kernels 3 and 5 at strides 1
# and 2. Strides and kernels of 5 come early: on 4×4 feature maps, torch's backward pass of a depthwise 5×5 convolution
# takes longer than the rest of the block. 65 pixels → 32 → 16 → 8 → 4.
TINY = Preset(
    text=TextConfig(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=MAX_TOKENS,
    ),
    vision=VisionConfig(
        image_size=65,
        width_coefficient=0.5,
        depth_coefficient=1.2,
        in_channels=(32, 32, 48, 64, 80, 96, 128),
        out_channels=(32, 48, 64, 80, 96, 128, 192),
        kernel_sizes=(3, 5, 5, 3, 3, 3, 3),
        strides=(2, 2, 1, 2, 1, 1, 1),
        num_block_repeats=(1, 1, 2, 2, 2, 1, 1),
        hidden_dim=96,
    ),
    image=ImageSize(resize=76, crop=65),
    batch_size=128,
    # Handwriting is learned last and slowest, so most images of the second phase are digits.
    phases=(
        Phase(steps=2400, pool_size=40_000, digit_share=0.35, learning_rate=1.5e-3),
        Phase(steps=1500, pool_size=30_000, digit_share=0.7, learning_rate=1.5e-3),
    ),
)

# Wider and deeper in both towers, for measurements for which a model of 5 MB is too small. Not in the repository. With
# six layers of width 192 the text tower learns only one attribute; images of 81 pixels double the training time.
SMALL = Preset(
    text=TextConfig(
        hidden_size=160,
        num_hidden_layers=5,
        num_attention_heads=5,
        intermediate_size=480,
        max_position_embeddings=MAX_TOKENS,
    ),
    vision=VisionConfig(
        image_size=65,
        width_coefficient=0.8,
        depth_coefficient=1.6,
        kernel_sizes=(3, 5, 5, 3, 3, 3, 3),
        in_channels=(32, 32, 48, 64, 80, 96, 128),
        out_channels=(32, 48, 64, 80, 96, 128, 192),
        strides=(2, 2, 1, 2, 1, 1, 1),
        num_block_repeats=(1, 1, 2, 3, 3, 2, 1),
        hidden_dim=160,
    ),
    image=ImageSize(resize=76, crop=65),
    batch_size=128,
    phases=(
        Phase(steps=3000, pool_size=50_000, digit_share=0.35, learning_rate=1.2e-3),
        Phase(steps=2000, pool_size=50_000, digit_share=0.65, learning_rate=1.2e-3),
    ),
)

PRESETS: Mapping[str, Preset] = {"tiny": TINY, "small": SMALL}
