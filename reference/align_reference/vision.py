"""The vision tower: EfficientNet without its top convolution. Module names are the keys of the published state dict.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_reference.activations import ACTIVATIONS
from align_reference.config import STEM_CHANNELS, VisionConfig
from align_runtime.errors import ConfigurationError


@dataclass(frozen=True)
class VisionOutput:
    """Result of `VisionModel`, with the field names of transformers.

    Attributes:
        last_hidden_state: float (B, C, H, W), the feature map of the last block.
        pooler_output: float (B, C), its mean or maximum over H and W; the image embedding before L2 normalization.
        hidden_states: output of the stem and of each block, each (B, C, H, W); None unless requested.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class BlockShape:
    """One inverted-residual block.

    Attributes:
        in_dim, out_dim: channels.
        kernel_size, stride: of the depthwise convolution.
        expand_ratio: channels inside the block per input channel; 1 omits the expansion.
        residual: whether the block's input is added to its output.
        padding: zeros (left, right, top, bottom) before a depthwise convolution of stride 2; None at stride 1.
    """

    in_dim: int
    out_dim: int
    kernel_size: int
    stride: int
    expand_ratio: int
    residual: bool
    padding: tuple[int, int, int, int] | None


def block_shapes(config: VisionConfig) -> Iterator[BlockShape]:
    """The blocks of the tower in order: the architecture as a table."""
    index = 0
    for stage, repeats in enumerate(config.num_block_repeats):
        in_dim = config.round_filters(config.in_channels[stage])
        out_dim = config.round_filters(config.out_channels[stage])
        kernel_size = config.kernel_sizes[stage]
        half = kernel_size // 2
        for repeat in range(config.round_repeats(repeats)):
            stride = config.strides[stage] if repeat == 0 else 1
            near = half if index in config.depthwise_padding else half - 1  # symmetric only for the listed blocks
            yield BlockShape(
                in_dim=in_dim if repeat == 0 else out_dim,
                out_dim=out_dim,
                kernel_size=kernel_size,
                stride=stride,
                expand_ratio=config.expand_ratios[stage],
                residual=stride == 1 and repeat > 0,
                padding=(near, half, near, half) if stride == 2 else None,
            )
            index += 1


class Stem(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        channels = config.round_filters(STEM_CHANNELS)
        self.convolution = nn.Conv2d(config.num_channels, channels, kernel_size=3, stride=2, bias=False)
        self.batchnorm = nn.BatchNorm2d(channels, eps=config.batch_norm_eps)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, pixel_values: Tensor) -> Tensor:
        padded = F.pad(pixel_values, (0, 1, 0, 1))
        return self.activation(self.batchnorm(self.convolution(padded)))  # (B, C, H/2, W/2)


class Expansion(nn.Module):
    def __init__(self, config: VisionConfig, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.expand_conv = nn.Conv2d(in_dim, out_dim, kernel_size=1, bias=False)
        self.expand_bn = nn.BatchNorm2d(out_dim, eps=config.batch_norm_eps)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.expand_bn(self.expand_conv(x)))


class Depthwise(nn.Module):
    def __init__(self, config: VisionConfig, shape: BlockShape, dim: int) -> None:
        super().__init__()
        self.padding = shape.padding
        self.depthwise_conv = nn.Conv2d(
            dim,
            dim,
            kernel_size=shape.kernel_size,
            stride=shape.stride,
            padding=shape.kernel_size // 2 if shape.padding is None else 0,
            groups=dim,
            bias=False,
        )
        self.depthwise_norm = nn.BatchNorm2d(dim, eps=config.batch_norm_eps)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        if self.padding is not None:
            x = F.pad(x, self.padding)
        return self.activation(self.depthwise_norm(self.depthwise_conv(x)))


class SqueezeExcite(nn.Module):
    """Channel gates from the global mean. The inner width depends on the block's input, not on the expanded width."""

    def __init__(self, config: VisionConfig, in_dim: int, dim: int) -> None:
        super().__init__()
        inner = max(1, int(in_dim * config.squeeze_expansion_ratio))
        self.reduce = nn.Conv2d(dim, inner, kernel_size=1)
        self.expand = nn.Conv2d(inner, dim, kernel_size=1)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        gates = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        gates = self.expand(self.activation(self.reduce(gates)))
        return x * torch.sigmoid(gates)


class Projection(nn.Module):
    def __init__(self, config: VisionConfig, dim: int, out_dim: int) -> None:
        super().__init__()
        self.project_conv = nn.Conv2d(dim, out_dim, kernel_size=1, bias=False)
        self.project_bn = nn.BatchNorm2d(out_dim, eps=config.batch_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.project_bn(self.project_conv(x))


class Block(nn.Module):
    """Expand → depthwise → squeeze-excite → project, plus the input if the block is residual."""

    def __init__(self, config: VisionConfig, shape: BlockShape) -> None:
        super().__init__()
        dim = shape.in_dim * shape.expand_ratio
        self.residual = shape.residual
        self.expansion = Expansion(config, shape.in_dim, dim) if shape.expand_ratio != 1 else None
        self.depthwise_conv = Depthwise(config, shape, dim)
        self.squeeze_excite = SqueezeExcite(config, shape.in_dim, dim)
        self.projection = Projection(config, dim, shape.out_dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.expansion is None else self.expansion(x)
        hidden = self.projection(self.squeeze_excite(self.depthwise_conv(hidden)))
        return hidden + x if self.residual else hidden


class VisionEncoder(nn.Module):
    """The blocks, which `VisionModel.forward` runs through."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, shape) for shape in block_shapes(config))


class VisionModel(nn.Module):
    """EfficientNet, followed by a global mean or maximum.

    transformers pools with a window of `hidden_dim` × `hidden_dim`, which is global as long as it covers the feature
    map.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Stem(config)
        self.encoder = VisionEncoder(config)

    def forward(self, pixel_values: Tensor, output_hidden_states: bool = False) -> VisionOutput:
        """Runs the tower over `pixel_values`, float (B, 3, H, W), normalized as the checkpoint's processor does.

        Raises:
            ConfigurationError: the feature map is larger than the pooling window.
        """
        hidden = self.embeddings(pixel_values)
        hidden_states = [hidden] if output_hidden_states else None
        for block in self.encoder.blocks:
            hidden = block(hidden)  # (B, C, H, W)
            if hidden_states is not None:
                hidden_states.append(hidden)
        return VisionOutput(
            last_hidden_state=hidden,
            pooler_output=self._pool(hidden),
            hidden_states=None if hidden_states is None else tuple(hidden_states),
        )

    def _pool(self, features: Tensor) -> Tensor:
        if max(features.shape[-2:]) > self.config.hidden_dim:
            raise ConfigurationError(
                f"the feature map is {features.shape[-2]}×{features.shape[-1]}, larger than the pooling window "
                f"hidden_dim={self.config.hidden_dim}; use smaller images"
            )
        if self.config.pooling_type == "mean":
            return features.mean((2, 3), keepdim=True).flatten(1)  # (B, C)
        return features.amax((2, 3), keepdim=True).flatten(1)
