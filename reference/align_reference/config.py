"""Configuration of ALIGN, read from a Hugging Face ``config.json``: every key is honoured, ignored by name, or refused.

Defaults are those of transformers' `AlignConfig`, because a ``config.json`` leaves out what equals them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from align_reference.activations import ACTIVATIONS
from align_reference.config_keys import refuse_unknown
from align_runtime.errors import ConfigurationError
from align_runtime.json_files import of_kind, read_object

MAX_WIDTH = 1 << 16  # larger than any layer of the architecture; keeps a forged file from asking for terabytes
MAX_LAYERS = 1 << 10
MAX_COEFFICIENT = 64.0

STEM_CHANNELS = 32  # of the first convolution, before width scaling


@dataclass(frozen=True)
class TextConfig:
    """BERT, the text tower. Field names and meaning as in ``text_config``."""

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
        config = _read_fields(cls, values, where, model_types=("align_text_model", "bert"))
        config._check(where)
        return config

    def _check(self, where: str) -> None:
        _check_range(self, where, ("vocab_size",), 1, 1 << 24)
        widths = ("hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings")
        _check_range(self, where, (*widths, "type_vocab_size"), 1, MAX_WIDTH)
        _check_range(self, where, ("num_hidden_layers",), 1, MAX_LAYERS)
        _check_positive(self, where, "layer_norm_eps")
        _check_activation(self.hidden_act, where)
        if self.hidden_size % self.num_attention_heads:
            raise ConfigurationError(
                f"{where}: hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}"
            )
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ConfigurationError(
                f"{where}: pad_token_id {self.pad_token_id} lies outside the vocabulary of {self.vocab_size}"
            )


@dataclass(frozen=True)
class VisionConfig:
    """EfficientNet, the vision tower. Field names and meaning as in ``vision_config``."""

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
        config = _read_fields(cls, values, where, model_types=("align_vision_model",))
        config._check(where)
        return config

    def _check(self, where: str) -> None:
        _check_range(self, where, ("depth_divisor", "hidden_dim"), 1, MAX_WIDTH)
        for name in ("width_coefficient", "depth_coefficient", "squeeze_expansion_ratio"):
            _check_positive(self, where, name, upper=MAX_COEFFICIENT)
        _check_positive(self, where, "batch_norm_eps")
        sizes = self.image_size if isinstance(self.image_size, tuple) else (self.image_size,)
        if len(sizes) not in (1, 2) or not all(1 <= size <= MAX_WIDTH for size in sizes):
            raise ConfigurationError(
                f"{where}: image_size is {self.image_size}; one number or a height and a width is needed, "
                f"1 to {MAX_WIDTH}"
            )
        _check_activation(self.hidden_act, where)
        if self.num_channels != 3:
            raise ConfigurationError(f"{where}: num_channels is {self.num_channels}; images are RGB, so 3 is needed")
        if self.pooling_type not in ("mean", "max"):
            raise ConfigurationError(f"{where}: pooling_type is {self.pooling_type!r}; 'mean' or 'max' is needed")
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
                    "one per stage is needed"
                )
            for value in stages:
                if not lower <= value <= upper:
                    raise ConfigurationError(f"{where}: {name} holds {value}; {lower} to {upper} is supported")
        for kernel in self.kernel_sizes:
            if kernel % 2 == 0:
                raise ConfigurationError(f"{where}: kernel_sizes holds {kernel}; kernels must be odd")
        for below, above in zip((STEM_CHANNELS, *self.out_channels), self.in_channels, strict=False):
            if self.round_filters(below) != self.round_filters(above):
                raise ConfigurationError(
                    f"{where}: in_channels holds {above} where the layer before puts out {below}; they must agree "
                    f"(the first convolution puts out {STEM_CHANNELS}, before width scaling)"
                )
        if self.num_blocks > MAX_LAYERS:
            raise ConfigurationError(f"{where}: {self.num_blocks} blocks; at most {MAX_LAYERS} are supported")

    def round_filters(self, channels: int) -> int:
        """Channels after width scaling: the nearest multiple of `depth_divisor` (half up), never over 10 % below.

        Source: the EfficientNet paper's compound scaling, as in transformers' ``round_filters``.
        """
        scaled = channels * self.width_coefficient
        divisor = self.depth_divisor
        rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
        if rounded < 0.9 * scaled:
            rounded += divisor
        return int(rounded)

    def round_repeats(self, repeats: int) -> int:
        """Blocks of a stage after depth scaling: ``ceil(depth_coefficient · repeats)``."""
        return math.ceil(self.depth_coefficient * repeats)

    @property
    def num_blocks(self) -> int:
        """Blocks of the whole tower, 55 for B7."""
        return sum(self.round_repeats(repeats) for repeats in self.num_block_repeats)

    @property
    def output_dim(self) -> int:
        """Channels of the pooled output."""
        return self.round_filters(self.out_channels[-1])


@dataclass(frozen=True)
class AlignConfig:
    """Both towers and the space that they share."""

    text: TextConfig
    vision: VisionConfig
    projection_dim: int = 640
    temperature_init_value: float = 1.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> Self:
        """Reads the object of a ``config.json``.

        Raises:
            ConfigurationError: another model type, an unknown key, a value of the wrong type or out of range.
        """
        model_type = values.get("model_type")
        if model_type != "align":
            raise ConfigurationError(
                f"{where}: model_type is {model_type!r}; only 'align' checkpoints can be read "
                "(is this the folder of another model?)"
            )
        known = {"model_type", "text_config", "vision_config", "projection_dim", "temperature_init_value"}
        refuse_unknown({key: value for key, value in values.items() if key not in known}, where)
        config = cls(
            text=TextConfig.from_dict(_section(values, "text_config", where), f"{where}: text_config"),
            vision=VisionConfig.from_dict(_section(values, "vision_config", where), f"{where}: vision_config"),
            projection_dim=of_kind(f"{where}: projection_dim", values.get("projection_dim", 640), int),
            temperature_init_value=of_kind(
                f"{where}: temperature_init_value", values.get("temperature_init_value", 1.0), float
            ),
        )
        if config.vision.output_dim != config.projection_dim:
            raise ConfigurationError(
                f"{where}: the vision tower ends in {config.vision.output_dim} channels and projection_dim is "
                f"{config.projection_dim}; the two embeddings must have the same length"
            )
        return config

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Reads a ``config.json``; errors as in `from_dict`, and for a file that is missing or is no JSON object."""
        return cls.from_dict(read_object(path), str(path))


_Tower = TypeVar("_Tower", TextConfig, VisionConfig)


def _section(values: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    section = values.get(key)
    if section is None:
        return {}
    return of_kind(f"{where}: {key}", section, dict)


def _read_fields(cls: type[_Tower], values: Mapping[str, Any], where: str, model_types: tuple[str, ...]) -> _Tower:
    model_type = values.get("model_type", model_types[0])
    if model_type not in model_types:
        raise ConfigurationError(f"{where}: model_type is {model_type!r}; {model_types[0]!r} was expected")
    known = {field.name: field for field in fields(cls)}
    refuse_unknown({key: value for key, value in values.items() if key not in known and key != "model_type"}, where)
    arguments = {
        name: _convert(f"{where}: {name}", values[name], field) for name, field in known.items() if name in values
    }
    return cls(**arguments)


def _convert(name: str, value: Any, field: Field[Any]) -> Any:
    kinds: Mapping[str, tuple[type, ...]] = {
        "int": (int,),
        "float": (float,),
        "str": (str,),
        "int | None": (int, type(None)),
        "tuple[int, ...]": (list, tuple),
        "int | tuple[int, ...]": (int, list, tuple),
    }
    assert field.default is not MISSING
    checked = of_kind(name, value, kinds[str(field.type)])
    if isinstance(checked, list | tuple):
        return tuple(of_kind(name, item, int) for item in checked)
    return checked


def _check_range(config: object, where: str, names: tuple[str, ...], lower: int, upper: int) -> None:
    for name in names:
        value = getattr(config, name)
        if not lower <= value <= upper:
            raise ConfigurationError(f"{where}: {name} is {value}; {lower} to {upper} is supported")


def _check_positive(config: object, where: str, name: str, upper: float = math.inf) -> None:
    value = getattr(config, name)
    if not (math.isfinite(value) and 0 < value <= upper):
        limit = "" if math.isinf(upper) else f" of at most {upper:g}"
        raise ConfigurationError(f"{where}: {name} is {value}; a positive number{limit} is needed")


def _check_activation(name: str, where: str) -> None:
    if name not in ACTIVATIONS:
        raise ConfigurationError(f"{where}: hidden_act is {name!r}; known: {', '.join(sorted(ACTIVATIONS))}")
