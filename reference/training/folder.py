"""Writes a trained model as a Hugging Face folder, and reads it for the evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from align_reference.config import AlignConfig
from align_reference.model import AlignModel
from training.presets import MAX_TOKENS, ImageSize


def write_folder(folder: Path, model: AlignModel, tokenizer: Tokenizer, image: ImageSize) -> None:
    """Writes configuration, weights, tokenizer and preprocessing; existing files are overwritten."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", _config_values(model.config))
    _write_json(folder / "preprocessor_config.json", _preprocessor_values(image))
    _write_json(folder / "tokenizer_config.json", TOKENIZER_VALUES)
    tokenizer.save(str(folder / "tokenizer.json"))
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words), encoding="utf-8")
    weights = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def read_folder(folder: Path) -> tuple[AlignModel, Tokenizer, ImageSize]:
    """The model in evaluation mode, its tokenizer and its preprocessing.

    Only for folders of `write_folder`; other checkpoints are loaded with `align_reference.load_model`.
    """
    model = AlignModel(AlignConfig.from_file(folder / "config.json"))
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    values = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    image = ImageSize(resize=values["size"]["height"], crop=values["crop_size"]["height"])
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json")), image


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """`input_ids` and `attention_mask`, int64 (texts, longest), padded with 0."""
    rows = [encoding.ids[:MAX_TOKENS] for encoding in tokenizer.encode_batch(list(texts))]
    longest = max(map(len, rows))
    input_ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    attention_mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return input_ids, attention_mask


def _config_values(config: AlignConfig) -> dict[str, Any]:
    return {
        "architectures": ["AlignModel"],
        "model_type": "align",
        "projection_dim": config.projection_dim,
        "temperature_init_value": config.temperature_init_value,
        "text_config": {"model_type": "align_text_model", **asdict(config.text)},
        "torch_dtype": "float32",
        "vision_config": {"model_type": "align_vision_model", **asdict(config.vision)},
    }


def _preprocessor_values(image: ImageSize) -> dict[str, Any]:
    return {
        "crop_size": {"height": image.crop, "width": image.crop},
        "do_center_crop": True,
        "do_normalize": False,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_processor_type": "EfficientNetImageProcessor",
        "image_std": [0.229, 0.224, 0.225],
        "include_top": False,
        "processor_class": "AlignProcessor",
        "resample": 2,
        "rescale_factor": 0.00784313725490196,
        "rescale_offset": True,
        "size": {"height": image.resize, "width": image.resize},
    }


TOKENIZER_VALUES: Mapping[str, Any] = {
    "cls_token": "[CLS]",
    "do_basic_tokenize": True,
    "do_lower_case": True,
    "mask_token": "[MASK]",
    "model_max_length": MAX_TOKENS,
    "never_split": None,
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "strip_accents": None,
    "tokenize_chinese_chars": True,
    "tokenizer_class": "BertTokenizer",
    "unk_token": "[UNK]",
}


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
