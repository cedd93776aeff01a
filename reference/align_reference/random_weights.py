"""Random weights that behave like trained ones, for measuring latency and memory without a checkpoint.

A freshly initialized tower collapses: every image gives the same embedding. `condition` sets weights that keep
different images and texts apart and small disturbances small. No parameter has its neutral value, so that a misplaced
weight shows. The values for vision were measured on the published size: batch norms before an activation have weight
0.5 and bias 2 (swish is nearly linear there), the last one of a block has weight 0.25 where a residual is added and 1
where none is, and their statistics come from photographs. Such weights suit latency and parity of FP32 and FP16; they
say nothing about the accuracy of INT8.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from align_reference.config import AlignConfig
from align_reference.model import AlignModel, empty_model
from align_reference.vision import Block, VisionModel

TEMPERATURE = 0.07  # differs from every temperature_init_value, so that using that instead shows
SATURATING = ("sigmoid", "tanh")  # activations that a bias of 2 would saturate


def random_model(config: AlignConfig, seed: int, images: Tensor) -> AlignModel:
    """A float32 model of `config` in evaluation mode, without gradients, with weights as of `condition`.

    Raises:
        ConfigurationError: the model would be too large, see `empty_model`.
    """
    return condition(empty_model(config).to_empty(device="cpu"), seed, images).requires_grad_(False)


@torch.no_grad()
def condition(model: AlignModel, seed: int, images: Tensor) -> AlignModel:
    """Sets every weight of `model` from `seed`, its batch-norm statistics from `images` (float (B, 3, H, W)).

    Returns the model itself, in evaluation mode. A few images are enough; a single one has no variance after pooling.
    The same seed and images give the same weights on the same machine.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            # He for the convolutions, which an activation follows; the text tower as BERT, scaled to its width.
            gain = 2.0 if isinstance(module, nn.Conv2d) else 1.0
            module.weight.normal_(0.0, (gain / module.weight[0].numel()) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.normal_(0.0, 0.1, generator=generator)
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(0.0, 1.0, generator=generator)
        elif isinstance(module, nn.LayerNorm):
            _around(module, 1.0, 0.0, generator)
    _condition_batch_norms(model.vision_model, generator)
    calibrate(model.vision_model, images)
    model.temperature.fill_(TEMPERATURE)
    return model.eval()


def _around(
    module: nn.LayerNorm | nn.BatchNorm2d, weight: float, bias: float, generator: torch.Generator, spread: float = 0.1
) -> None:
    module.weight.normal_(weight, 0.1 * weight, generator=generator)
    module.bias.normal_(bias, spread, generator=generator)


def _condition_batch_norms(tower: VisionModel, generator: torch.Generator) -> None:
    bias = 0.0 if tower.config.hidden_act in SATURATING else 2.0
    weight = 1.0 if tower.config.hidden_act in SATURATING else 0.5
    _around(tower.embeddings.batchnorm, weight, bias, generator)
    for block in tower.encoder.blocks:
        assert isinstance(block, Block)
        if block.expansion is not None:
            _around(block.expansion.expand_bn, weight, bias, generator)
        _around(block.depthwise_conv.depthwise_norm, weight, bias, generator)
        # Small biases: they add up along the residuals to a component that all embeddings share.
        _around(block.projection.project_bn, 0.25 if block.residual else 1.0, 0.0, generator, spread=0.02)


@torch.no_grad()
def calibrate(tower: VisionModel, images: Tensor) -> None:
    """Sets batch-norm statistics in one forward pass: each layer gets inputs that earlier layers have normalized.

    Args:
        images: float (B, 3, H, W).
    """
    norms = [module for module in tower.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1.0  # the statistics become those of this batch
        norm.train()
    tower(images)
    for norm in norms:
        norm.momentum = 0.1
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.zero_()
        norm.eval()
