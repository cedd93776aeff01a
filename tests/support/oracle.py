"""transformers' `AlignModel` as the oracle, and the difference of a model from it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import transformers
from torch import Tensor

from align_reference.activations import ACTIVATIONS
from align_reference.config import VisionConfig
from align_reference.model import AlignModel, AlignOutput
from align_reference.text import TextOutput
from align_reference.vision import VisionOutput
from support.checkpoints import small_config

# float32 with another order of operations: measured at most 2.8e-6, 4.5e-6 and 1.3e-6 over the random configurations.
MAX_EMBEDDING_DIFFERENCE = 1e-5
MAX_RELATIVE_LOGIT_DIFFERENCE = 1e-4
MAX_OUTPUT_DIFFERENCE = 1e-5  # of an output of a tower, relative to its largest value, at least 1


@dataclass(frozen=True)
class Distance:
    """Largest absolute difference of the unit embeddings; for the logits, relative to the largest logit."""

    images: float
    texts: float
    logits: float

    def within_tolerance(self) -> bool:
        return max(self.images, self.texts) <= MAX_EMBEDDING_DIFFERENCE and self.logits <= MAX_RELATIVE_LOGIT_DIFFERENCE


def oracle_of(model: AlignModel, config: Mapping[str, Any]) -> transformers.AlignModel:
    """The oracle for the content of a ``config.json``, with the weights of `model`: the keys must agree exactly."""
    with torch.device("meta"):
        oracle = transformers.AlignModel(transformers.AlignConfig.from_dict(dict(config)))
    oracle = oracle.to_empty(device="cpu")
    oracle.load_state_dict(model.state_dict(), strict=True)
    embeddings = oracle.text_model.embeddings  # its buffers are not in the state dict
    embeddings.position_ids.copy_(torch.arange(embeddings.position_ids.shape[-1]).expand(1, -1))
    embeddings.token_type_ids.zero_()
    return oracle.eval()


def distance(ours: AlignOutput, theirs: Any) -> Distance:
    return Distance(
        images=_largest(ours.image_embeds - theirs.image_embeds),
        texts=_largest(ours.text_embeds - theirs.text_embeds),
        logits=_largest(ours.logits_per_text - theirs.logits_per_text) / _largest(theirs.logits_per_text),
    )


def output_differences(ours: TextOutput | VisionOutput, theirs: Any) -> dict[str, float]:
    """Difference of each output of a tower, as `MAX_OUTPUT_DIFFERENCE` measures it.

    Keys are field names, with an index where the field is a tuple. What one side returns, the other must return too.
    """
    differences = {}
    for field in fields(ours):
        own, other = getattr(ours, field.name), getattr(theirs, field.name)
        assert (own is None) == (other is None), field.name
        if own is None:
            continue
        pairs = zip(own, other, strict=True) if isinstance(own, tuple) else [(own, other)]
        for index, (tensor, expected) in enumerate(pairs):
            assert tensor.shape == expected.shape, field.name
            scale = max(1.0, _largest(expected))
            differences[f"{field.name}[{index}]"] = _largest(tensor - expected) / scale
    return differences


def spread(embeds: Tensor) -> float:
    """Smallest distance (largest absolute difference) between two rows of `embeds` (n, dim): 0 if two rows agree."""
    differences = (embeds[:, None] - embeds[None]).abs().amax(dim=-1)
    return float(differences[~torch.eye(len(embeds), dtype=torch.bool)].min())


def _largest(values: Tensor) -> float:
    assert bool(torch.isfinite(values).all())
    return float(values.abs().max())


def random_config(seed: int) -> dict[str, Any]:
    """Content of a small ``config.json`` in which every architectural key is drawn at random."""
    draw = random.Random(seed)
    stages = draw.randint(1, 4)
    widths = [32, *(draw.choice((8, 16, 24, 32, 40, 56)) for _ in range(stages))]
    vision: dict[str, Any] = {
        "image_size": draw.randint(24, 60),
        "width_coefficient": draw.choice((0.25, 0.5, 0.7, 1.0)),
        "depth_coefficient": draw.choice((0.5, 1.0, 1.3, 2.1)),
        "depth_divisor": draw.choice((4, 8)),
        "kernel_sizes": [draw.choice((3, 5, 7)) for _ in range(stages)],
        "in_channels": widths[:-1],
        "out_channels": widths[1:],
        "strides": [draw.choice((1, 2)) for _ in range(stages)],
        "num_block_repeats": [draw.randint(1, 2) for _ in range(stages)],
        "expand_ratios": [draw.choice((1, 2, 4, 6)) for _ in range(stages)],
        "squeeze_expansion_ratio": draw.choice((0.01, 0.1, 0.25, 0.5)),
        "hidden_act": draw.choice(sorted(ACTIVATIONS)),
        "hidden_dim": draw.choice((30, 64, 640)),  # never smaller than the feature map, at most 30×30
        "pooling_type": draw.choice(("mean", "max")),
        "batch_norm_eps": draw.choice((1e-3, 1e-5)),
    }
    blocks = VisionConfig.from_dict({**vision, "depthwise_padding": []}).num_blocks
    vision["depthwise_padding"] = draw.sample(range(blocks), draw.randint(0, blocks))
    heads = draw.choice((1, 2, 3, 4))
    text: dict[str, Any] = {
        "vocab_size": draw.randint(20, 200),
        "hidden_size": heads * draw.choice((4, 8, 16)),
        "num_hidden_layers": draw.randint(1, 4),
        "num_attention_heads": heads,
        "intermediate_size": draw.choice((16, 50, 96)),
        "hidden_act": draw.choice(sorted(ACTIVATIONS)),
        "max_position_embeddings": draw.randint(16, 80),
        "type_vocab_size": draw.randint(1, 3),
        "layer_norm_eps": draw.choice((1e-12, 1e-5)),
        "pad_token_id": draw.choice((None, 0, 7)),
    }
    return small_config(text_config=text, vision_config=vision, temperature_init_value=draw.choice((1.0, 0.25)))
