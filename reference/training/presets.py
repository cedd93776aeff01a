"""Architectures and schedules by name. The configurations are the reference's own, so what is trained is what loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from align_reference.config import AlignConfig, TextConfig, VisionConfig


@dataclass(frozen=True)
class ImageSize:
    """Preprocessing: the whole image to `resize` × `resize`, then the `crop` × `crop` pixels in its centre."""

    resize: int
    crop: int


@dataclass(frozen=True)
class Phase:
    """A stretch of training with images, learning-rate schedule and optimiser state of its own.

    Attributes:
        steps: length.
        pool_size: images drawn.
        digit_share: how many of them show a digit rather than a shape, 0 to 1.
        learning_rate: peak, after the warm-up.
    """

    steps: int
    pool_size: int
    digit_share: float
    learning_rate: float


@dataclass(frozen=True)
class Preset:
    """What `training.train` needs besides a seed.

    Attributes:
        text, vision: the towers; the vocabulary size of `text` is filled in from the vocabulary that is built.
        image: preprocessing.
        batch_size: images per step.
        phases: one after the other.
    """

    text: TextConfig
    vision: VisionConfig
    image: ImageSize
    batch_size: int
    phases: tuple[Phase, ...]

    def config(self, vocab_size: int) -> AlignConfig:
        """The configuration with the vocabulary filled in; the projection is as wide as the vision tower's output."""
        text = TextConfig(**{**vars(self.text), "vocab_size": vocab_size})
        return AlignConfig(
            text=text, vision=self.vision, projection_dim=self.vision.output_dim, temperature_init_value=0.1
        )


MAX_TOKENS = 32  # the longest caption has 18

# B7's table reduced, with every feature kept: expand ratio 1 with and without a skip, kernels 3 and 5 at strides 1
# and 2. The strides come early, and the kernels of 5 with them: on maps of 4×4 torch's backward pass of a depthwise
# 5×5 takes longer than the rest of the block. 65 pixels → 32 → 16 → 8 → 4.
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
    # Handwriting is learned last and slowest, so the second phase is mostly that.
    phases=(
        Phase(steps=2400, pool_size=40_000, digit_share=0.35, learning_rate=1.5e-3),
        Phase(steps=1500, pool_size=30_000, digit_share=0.7, learning_rate=1.5e-3),
    ),
)

# Wider and deeper in both towers, for measurements that a model of 5 MB cannot stand for. Not in the repository. With
# six layers of 192 the text tower learns one attribute and no more; images of 81 pixels double the time.
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
