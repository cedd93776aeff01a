"""Checkpoints for tests: complete Hugging Face folders with the weights of `align_reference.random_weights`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from align_reference.config import AlignConfig, VisionConfig
from align_reference.model import AlignModel
from align_reference.random_weights import random_model
from support.tokenizers import VOCABULARY, write_tokenizer

SMALL_TEXT = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
SMALL_VISION = {
    "image_size": 65,
    "width_coefficient": 0.5,
    "depth_coefficient": 1.1,
    "kernel_sizes": [3, 3, 5],
    "in_channels": [32, 16, 24],
    "out_channels": [16, 24, 40],
    "depthwise_padding": [2],
    "strides": [1, 2, 2],
    "num_block_repeats": [1, 1, 1],
    "expand_ratios": [1, 6, 6],
    "hidden_dim": 64,
}
FULL_SIZE_VISION = {"image_size": 289, "hidden_dim": 640}


def small_config(**overrides: Any) -> dict[str, Any]:
    """Content of a small ``config.json``: 6 blocks of every kind, 2 layers, images of 65×65.

    `text_config` and `vision_config` are merged key by key; `projection_dim` follows the vision tower unless given.
    """
    vision = {"model_type": "align_vision_model", **SMALL_VISION, **overrides.pop("vision_config", {})}
    text = {"model_type": "align_text_model", **SMALL_TEXT, **overrides.pop("text_config", {})}
    return {
        "model_type": "align",
        "architectures": ["AlignModel"],
        "text_config": text,
        "vision_config": vision,
        "projection_dim": VisionConfig.from_dict(vision).output_dim,
        **overrides,
    }


def full_size_config() -> dict[str, Any]:
    """Content of a ``config.json`` with the sizes of the published checkpoint; everything else is the default."""
    return {
        "model_type": "align",
        "architectures": ["AlignModel"],
        "text_config": {"model_type": "align_text_model"},
        "vision_config": {"model_type": "align_vision_model", **FULL_SIZE_VISION},
    }


@cache
def _photographs() -> tuple[Image.Image, ...]:
    from sklearn.datasets import load_sample_images  # a machine for the GPU check does not have it

    return tuple(Image.fromarray(image) for image in load_sample_images().images)


def crops(count: int, size: int, seed: int = 0) -> list[Image.Image]:
    """`count` RGB images of size×size: square parts of two photographs, at random places and scales."""
    generator = np.random.default_rng(seed)
    images = []
    for index in range(count):
        photograph = _photographs()[index % len(_photographs())]
        side = int(generator.integers(min(photograph.size) // 4, min(photograph.size)))
        left, top = (int(generator.integers(0, length - side)) for length in photograph.size)
        part = photograph.crop((left, top, left + side, top + side))
        images.append(part.resize((size, size), Image.Resampling.BILINEAR))
    return images


def pixel_values(count: int, size: int, seed: int = 0) -> Tensor:
    """`crops` as inputs of the vision tower: float32 (count, 3, size, size), −1 to 1."""
    pixels = np.stack([np.asarray(image) for image in crops(count, size, seed)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0


def token_batch(config: AlignConfig, count: int, length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random `input_ids` and `attention_mask`, int64 (count, length); rows are padded to different lengths."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(0, config.text.vocab_size, (count, length), generator=generator)
    lengths = torch.randint(min(2, length), length + 1, (count, 1), generator=generator)
    attention_mask = (torch.arange(length) < lengths).to(torch.int64)
    return input_ids * attention_mask, attention_mask


def build_model(config: Mapping[str, Any], seed: int = 0, images: int = 4) -> AlignModel:
    """A conditioned float32 model in evaluation mode; `config` is the content of a ``config.json``."""
    parsed = AlignConfig.from_dict(config)
    size = parsed.vision.image_size
    side = size if isinstance(size, int) else max(size)
    return random_model(parsed, seed, pixel_values(images, side, seed))


def write_checkpoint(folder: Path, config: Mapping[str, Any], seed: int = 0) -> Path:
    """Writes a complete checkpoint of `config` and returns `folder`, which is created.

    ``config.json``, ``model.safetensors`` and the tokenizer and processor files; image processing is that of ALIGN
    (346 → 289), scaled to the configuration's image_size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = build_model(config, seed)
    write_json(folder / "config.json", config)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    write_processor(folder, AlignConfig.from_dict(config).vision.image_size)
    write_tokenizer(folder)
    return folder


def full_size_checkpoint(folder: Path) -> Path:
    """`write_checkpoint` in the published sizes: EfficientNet-B7 and BERT-base, 172.1 M parameters, 690 MB."""
    return write_checkpoint(folder, full_size_config())


def write_processor(folder: Path, image_size: int | tuple[int, ...]) -> None:
    """Writes ``preprocessor_config.json`` with ALIGN's values, for images of `image_size`."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    resized = {"height": round(height * 346 / 289), "width": round(width * 346 / 289)}
    values = {
        "crop_size": {"height": height, "width": width},
        "do_center_crop": True,
        "do_normalize": False,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "EfficientNetImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "include_top": False,
        "processor_class": "AlignProcessor",
        "resample": 2,
        "rescale_factor": 0.00784313725490196,
        "rescale_offset": True,
        "size": resized,
    }
    write_json(folder / "preprocessor_config.json", values)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
