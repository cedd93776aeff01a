"""Checkpoints whose parameters are equal, zero or at their initial values: nothing in them is an identity.

Exporters drop zero biases, merge equal constants, and then merge operators that compute the same. A group is one
parameter of all layers or blocks, e.g. ``text_model.encoder.layer.*.attention.self.query.bias``. The groups come from
the state dict, so that none is forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from align_reference.config import AlignConfig
from support import checkpoints
from support.tokenizers import write_tokenizer

State = Mapping[str, Tensor]
TEXT, VISION = "text", "vision"
FILLS: Mapping[str, float] = {"zero": 0.0, "one": 1.0, "equal": 0.0625}  # the last is neither neutral nor initial
# With these, a tower gives everything the same embedding: there is nothing to export.
COLLAPSING = {
    ("text_model.embeddings.LayerNorm.weight", "zero"),
    ("text_model.encoder.layer.*.attention.self.value.weight", "zero"),
    ("text_model.encoder.layer.*.attention.output.dense.weight", "zero"),
    ("text_model.encoder.layer.*.attention.output.dense.weight", "equal"),
    ("text_model.encoder.layer.*.attention.output.LayerNorm.weight", "zero"),
    ("text_model.encoder.layer.*.output.LayerNorm.weight", "zero"),
    ("text_projection.weight", "zero"),
    ("vision_model.embeddings.convolution.weight", "zero"),
    ("vision_model.embeddings.batchnorm.weight", "zero"),
    ("vision_model.encoder.blocks.*.depthwise_conv.depthwise_conv.weight", "zero"),
    ("vision_model.encoder.blocks.*.depthwise_conv.depthwise_norm.weight", "zero"),
    ("vision_model.encoder.blocks.*.projection.project_conv.weight", "zero"),
    ("vision_model.encoder.blocks.*.projection.project_conv.weight", "equal"),
    ("vision_model.encoder.blocks.*.projection.project_bn.weight", "zero"),
    ("vision_model.encoder.blocks.*.expansion.expand_conv.weight", "zero"),
    ("vision_model.encoder.blocks.*.expansion.expand_bn.weight", "zero"),
}
UNUSED = re.compile(r"temperature$|num_batches_tracked$|\.pooler\.")
NORM = re.compile(r"(LayerNorm|batchnorm|norm|bn)\.(weight|bias|running_mean|running_var)$")
ONE = re.compile(r"(LayerNorm|batchnorm|norm|bn)\.(weight|running_var)$")  # the initial value of these is 1
LAYERS, BLOCKS = "text_model.encoder.layer.", "vision_model.encoder.blocks."
# Without variance, a batch norm multiplies by 1/√eps: most activations exceed FP16.
OVERFLOWING = ("vision_model.encoder.blocks.*.depthwise_conv.depthwise_norm.running_var", "zero")


def config() -> dict[str, Any]:
    """The small configuration with four blocks in place of six: with and without expansion and residual."""
    vision = {
        "image_size": 49,
        "kernel_sizes": [3, 5],
        "in_channels": [32, 16],
        "out_channels": [16, 24],
        "strides": [1, 2],
        "num_block_repeats": [1, 1],
        "expand_ratios": [1, 6],
        "depthwise_padding": [],
    }
    return checkpoints.small_config(vision_config=vision)


def tower_of(name: str) -> str:
    """Which tower a parameter or a group belongs to."""
    return TEXT if name.startswith(TEXT) else VISION


def groups(state: State, tower: str) -> dict[str, list[str]]:
    """The parameters of `tower` by group."""
    found: dict[str, list[str]] = {}
    for name in state:
        if tower_of(name) == tower and UNUSED.search(name) is None:
            found.setdefault(re.sub(r"\.\d+\.", ".*.", name), []).append(name)
    return found


def cases(state: State, tower: str) -> list[tuple[str, str]]:
    """Every group of `tower` with two fills: zero, and one for what scales by itself or another equal value."""
    return [
        (group, fill) for group in groups(state, tower) for fill in ("zero", "one" if ONE.search(group) else "equal")
    ]


def filled(state: State, names: Iterable[str], value: float) -> State:
    """`state` with `value` in all of the parameters `names`."""
    return {**state, **{name: torch.full_like(state[name], value) for name in names}}


def initialized(state: State, chosen: Callable[[str], object]) -> State:
    """`state` with the initial values of those biases and norms that are `chosen`."""
    names = [name for name in state if (name.endswith("bias") or NORM.search(name)) and chosen(name)]
    return {**state, **{name: torch.full_like(state[name], 1.0 if ONE.search(name) else 0.0) for name in names}}


def repeated(state: State, prefix: str) -> State:
    """`state` in which every layer or block under `prefix` equals the first one of the same shapes."""
    changed = dict(state)
    for name, tensor in state.items():
        number = re.match(re.escape(prefix) + r"(\d+)\.", name)
        if number is not None:
            others = (name.replace(number[0], f"{prefix}{index}.", 1) for index in range(int(number[1])))
            same = [other for other in others if other in state and state[other].shape == tensor.shape]
            changed[name] = state[same[0]].clone() if same else tensor
    return changed


def one_projection(state: State, parts: str = "key|value") -> State:
    """`state` in which these projections of every layer equal the one to queries."""
    pattern = re.compile(rf"\.self\.({parts})\.")
    names = [name for name in state if pattern.search(name)]
    return {**state, **{name: state[pattern.sub(".self.query.", name)].clone() for name in names}}


def gates_closed(state: State) -> State:
    """`state` with squeeze-excite zero: every gate is ½."""
    return filled(state, [name for name in state if "squeeze_excite" in name], 0.0)


# Everything at once, and what a single group cannot show.
WHOLE: Mapping[str, Callable[[State], State]] = {
    "as initialized": lambda state: gates_closed(initialized(state, bool)),
    "text biases and gates zero": lambda state: gates_closed(
        filled(state, [name for name in state if tower_of(name) == TEXT and name.endswith("bias")], 0.0)
    ),
    "norms as initialized": lambda state: initialized(state, NORM.search),
    "layers and blocks repeated": lambda state: repeated(repeated(state, LAYERS), BLOCKS),
    "one projection for query, key and value": one_projection,
    "one projection for query and key": lambda state: one_projection(state, "key"),
    "all of it": lambda state: one_projection(
        repeated(repeated(gates_closed(initialized(state, bool)), LAYERS), BLOCKS)
    ),
}


def write(folder: Path, state: State) -> Path:
    """Writes a complete checkpoint with the parameters `state` and returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    values = config()
    checkpoints.write_json(folder / "config.json", values)
    save_file(dict(state), folder / "model.safetensors", metadata={"format": "pt"})
    checkpoints.write_processor(folder, AlignConfig.from_dict(values).vision.image_size)
    write_tokenizer(folder)
    return folder


def base_state() -> dict[str, Tensor]:
    """Conditioned random parameters, none of them equal."""
    return dict(checkpoints.build_model(config()).state_dict())
