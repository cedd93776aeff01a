"""Configuration of ALIGN, read from a Hugging Face ``config.json``: every key is used, ignored by name, or refused.

Defaults are those of transformers' `AlignConfig`, because a ``config.json`` omits values that equal them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from align_reference.config_reading import (
    IGNORED_KEYS,
    NEUTRAL_VALUES,
    check_activation,
    check_positive,
    check_range,
    known_keys,
    read_section,
    refuse_unknown,
    without_unknown,
)
from align_reference.listing import shorten
from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.json_files import of_kind, read_object

MIN_COEFFICIENT = 1e-3
MIN_EPSILON, MAX_EPSILON = 1e-30, 1.0  # of normalization; float32 has no digits left below
MAX_WIDTH = 1 << 16  # larger than any layer of ALIGN
MAX_IMAGE_SIDE = 2048  # pixels; an EfficientNet-B7 takes gigabytes for an image of that size
MAX_LAYERS = 1 << 10
MAX_COEFFICIENT = 64.0
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-6, 1e6  # ALIGN learns some 0.01; beyond these no softmax of logits says anything

STEM_CHANNELS = 32  # of the first convolution, before width scaling


@dataclass(frozen=True)
class TextConfig:
    """BERT, the text tower. Names and meaning of the fields as in ``text_config``."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "text_config") -> TextConfig:
        config = read_section(cls, values, where, model_types=("align_text_model", "bert"))
        config._check(where)
        return config

    def _check(self, where: str) -> None:
        check_range(self, where, ("vocab_size",), 1, 1 << 24)
        widths = ("hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings")
        check_range(self, where, (*widths, "type_vocab_size"), 1, MAX_WIDTH)
        check_range(self, where, ("num_hidden_layers",), 1, MAX_LAYERS)
        check_positive(self, where, "layer_norm_eps", MIN_EPSILON, MAX_EPSILON)
        check_activation(self.hidden_act, where)
        if self.hidden_size % self.num_attention_heads:
            raise ConfigurationError(
                f"{where}: hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}"
            )
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ConfigurationError(
                f"{where}: pad_token_id {shortened(self.pad_token_id)} is outside the vocabulary of {self.vocab_size} "
                "tokens"
            )


@dataclass(frozen=True)
class VisionConfig:
    """EfficientNet, the vision tower. Names and meaning of the fields as in ``vision_config``."""

    num_channels: int = 3
    image_size: int | tuple[int, ...] = 600
    width_coefficient: float = 2.0
    depth_coefficient: float = 3.1
    depth_divisor: int = 8
    kernel_sizes: tuple[int, ...] = (3, 3, 5, 3, 5, 5, 3)
    in_channels: tuple[int, ...] = (32, 16, 24, 40, 80, 112, 192)
    out_channels: tuple[int, ...] = (16, 24, 40, 80, 112, 192, 320)
    depthwise_padding: tuple[int, ...] = ()
    strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
    num_block_repeats: tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)
    expand_ratios: tuple[int, ...] = (1, 6, 6, 6, 6, 6, 6)
    squeeze_expansion_ratio: float = 0.25
    hidden_act: str = "swish"
    hidden_dim: int = 2560
    pooling_type: str = "mean"
    batch_norm_eps: float = 0.001

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "vision_config") -> VisionConfig:
        config = read_section(cls, values, where, model_types=("align_vision_model",))
        config._check(where)
        return config

    def _check(self, where: str) -> None:
        check_range(self, where, ("depth_divisor", "hidden_dim"), 1, MAX_WIDTH)
        for name in ("width_coefficient", "depth_coefficient", "squeeze_expansion_ratio"):
            check_positive(self, where, name, MIN_COEFFICIENT, MAX_COEFFICIENT)
        check_positive(self, where, "batch_norm_eps", MIN_EPSILON, MAX_EPSILON)
        sizes = self.image_size if isinstance(self.image_size, tuple) else (self.image_size,)
        if len(sizes) not in (1, 2) or not all(1 <= size <= MAX_IMAGE_SIDE for size in sizes):
            raise ConfigurationError(
                f"{where}: image_size is {shorten(self.image_size)}; expected one size, or a height and a width, of 1 "
                f"to {MAX_IMAGE_SIDE} pixels"
            )
        check_activation(self.hidden_act, where)
        if self.num_channels != 3:
            raise ConfigurationError(
                f"{where}: num_channels is {shortened(self.num_channels)}; expected 3, images are RGB"
            )
        if self.pooling_type not in ("mean", "max"):
            raise ConfigurationError(f"{where}: pooling_type is {shorten(self.pooling_type)!r}; expected mean or max")
        self._check_stages(where)

    def _check_stages(self, where: str) -> None:
        bounds = {
            "kernel_sizes": (3, 31),
            "in_channels": (1, MAX_WIDTH),
            "out_channels": (1, MAX_WIDTH),
            "strides": (1, 2),
            "num_block_repeats": (1, MAX_LAYERS),
            "expand_ratios": (1, 64),
        }
        for name, (lower, upper) in bounds.items():
            stages = getattr(self, name)
            if not stages or len(stages) != len(self.in_channels):
                raise ConfigurationError(
                    f"{where}: {name} has {len(stages)} entries and in_channels {len(self.in_channels)}; "
                    "expected one per stage"
                )
            for value in stages:
                if not lower <= value <= upper:
                    raise ConfigurationError(
                        f"{where}: {name} holds {shortened(value)}; {lower} to {upper} is supported"
                    )
        for index in self.depthwise_padding:
            if not 0 <= index < MAX_LAYERS:
                raise ConfigurationError(
                    f"{where}: depthwise_padding holds {shortened(index)}; expected indices of blocks"
                )
        for kernel in self.kernel_sizes:
            if kernel % 2 == 0:
                raise ConfigurationError(f"{where}: kernel_sizes holds {kernel}; kernels must be odd")
        for below, above in zip((STEM_CHANNELS, *self.out_channels), self.in_channels, strict=False):
            if self.round_filters(below) != self.round_filters(above):
                raise ConfigurationError(
                    f"{where}: in_channels holds {above}, but the previous stage has {below} output channels; they "
                    f"must agree (the stem has {STEM_CHANNELS}, before width scaling)"
                )
        if self.num_blocks > MAX_LAYERS:
            raise ConfigurationError(f"{where}: {self.num_blocks} blocks; at most {MAX_LAYERS} are supported")

    def round_filters(self, channels: int) -> int:
        """Channels after width scaling: the nearest multiple of `depth_divisor` (half up), at most 10 % below.

        Source: compound scaling in the EfficientNet paper (arXiv 1905.11946), rounded as in its published code.
        """
        scaled = channels * self.width_coefficient
        divisor = self.depth_divisor
        rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
        if rounded < 0.9 * scaled:
            rounded += divisor
        return int(rounded)

    def round_repeats(self, repeats: int) -> int:
        """Number of blocks of a stage after depth scaling: ``ceil(depth_coefficient · repeats)``."""
        return math.ceil(self.depth_coefficient * repeats)

    @property
    def num_blocks(self) -> int:
        """Number of blocks of the tower, 55 for B7."""
        return sum(self.round_repeats(repeats) for repeats in self.num_block_repeats)

    @property
    def output_dim(self) -> int:
        """Channels of the pooled output."""
        return self.round_filters(self.out_channels[-1])


SECTIONS: Mapping[str, type] = {"text_config": TextConfig, "vision_config": VisionConfig}
TOP_KEYS = frozenset({"model_type", *SECTIONS, "projection_dim", "temperature_init_value"})


@dataclass(frozen=True)
class AlignConfig:
    """Configuration of both towers and of their shared embedding space."""

    text: TextConfig
    vision: VisionConfig
    projection_dim: int = 640
    temperature_init_value: float = 1.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> Self:
        """The configuration in `values`, the content of a ``config.json``; `where` begins every message.

        Raises:
            ConfigurationError: another model type, an unknown key, a value of the wrong type or out of range.
        """
        model_type = values.get("model_type")
        if model_type != "align":
            raise ConfigurationError(
                f"{where}: model_type is {shortened(model_type)}; expected 'align' (is this the folder of another "
                "model?)"
            )
        refuse_unknown({key: value for key, value in values.items() if key not in TOP_KEYS}, where)
        config = cls(
            text=TextConfig.from_dict(_section(values, "text_config", where), f"{where}: text_config"),
            vision=VisionConfig.from_dict(_section(values, "vision_config", where), f"{where}: vision_config"),
            projection_dim=of_kind(f"{where}: projection_dim", values.get("projection_dim", 640), int),
            temperature_init_value=of_kind(
                f"{where}: temperature_init_value", values.get("temperature_init_value", 1.0), float
            ),
        )
        check_range(config, where, ("projection_dim",), 1, MAX_WIDTH)
        check_positive(config, where, "temperature_init_value", MIN_TEMPERATURE, MAX_TEMPERATURE)
        if config.vision.output_dim != config.projection_dim:
            raise ConfigurationError(
                f"{where}: the vision tower has {config.vision.output_dim} output channels and projection_dim is "
                f"{config.projection_dim}; they must be equal, because images and texts share one embedding space"
            )
        return config

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """The configuration in the file `path`.

        Raises:
            ConfigurationError: as in `from_dict`, or the file is missing or not a JSON object.
        """
        return cls.from_dict(read_object(path), str(path))


def known_part(values: Mapping[str, Any], ignored: list[str]) -> dict[str, Any]:
    """The content of a ``config.json`` without the keys that are unknown here; `ignored` gets a line for each of them.

    Raises:
        ConfigurationError: there are more than a hundred.
    """
    kept = without_unknown(values, TOP_KEYS | IGNORED_KEYS | NEUTRAL_VALUES.keys(), "config.json", ignored)
    for name, cls in SECTIONS.items():
        if isinstance(kept.get(name), dict):
            kept[name] = without_unknown(kept[name], known_keys(cls), f"config.json: {name}", ignored)
    return kept


def _section(values: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    section = values.get(key)
    return {} if section is None else of_kind(f"{where}: {key}", section, dict)
