"""Writes a checkpoint with random weights for the GPU check: in the published sizes, or small for a dry run.

    python -m benchmarks.gpu.checkpoint FOLDER [--dry]

It needs no package beyond those of the exporter; batch norms see the built-in images. The weights of a layer have one
magnitude and random signs: what such a network computes is as conditioned as with weights from a normal distribution,
and a bundle of it compresses to a tenth, to be carried to a machine on which an export would take too long.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from align_exporter.builtin_samples import images
from align_reference.config import AlignConfig
from align_reference.random_weights import calibrate, random_model
from align_runtime.images import preprocess
from align_runtime.preprocessing import ImagePreprocessing
from support.checkpoints import full_size_config, small_config, write_json, write_processor
from support.tokenizers import write_tokenizer


def write(folder: Path, is_small: bool) -> None:
    """Writes the checkpoint into `folder`, in place of one that lies there."""
    folder.mkdir(parents=True, exist_ok=True)
    values = small_config() if is_small else full_size_config()
    config = AlignConfig.from_dict(values)
    size = config.vision.image_size
    write_json(folder / "config.json", values)
    write_processor(folder, size)
    write_tokenizer(folder)
    file = folder / "preprocessor_config.json"
    preprocessing = ImagePreprocessing.from_hub(json.loads(file.read_text(encoding="utf-8")), str(file))
    pixels = preprocessing.normalize(preprocess(images(), preprocessing))
    model = random_model(config, 0, torch.from_numpy(pixels))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
                module.weight.copy_(module.weight.square().mean().sqrt() * module.weight.sign())
        calibrate(model.vision_model, torch.from_numpy(pixels))
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dry", action="store_true", help="a small one")
    options = parser.parse_args()
    write(options.folder, options.dry)


if __name__ == "__main__":
    main()
