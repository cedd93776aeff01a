"""The graph contract: names, dtypes and shapes of the inputs and the output of a tower in torch, ONNX and bundle."""

from __future__ import annotations

from dataclasses import dataclass

from align_reference.config import AlignConfig
from align_runtime.graph_entry import TensorSpec


@dataclass(frozen=True)
class GraphContract:
    """Inputs and output of a graph. Dynamic dimensions have names, all others are fixed."""

    tower: str
    inputs: tuple[TensorSpec, ...]
    output: TensorSpec


def vision_contract(config: AlignConfig, size: tuple[int, int], pixel_input: str) -> GraphContract:
    """Contract of the vision tower for images of `size` (height, width): uint8, or normalized float32."""
    height, width = size
    if pixel_input == "uint8":
        pixels = TensorSpec("pixels", "uint8", ("batch", height, width, 3))
    else:
        pixels = TensorSpec("pixel_values", "float32", ("batch", 3, height, width))
    return GraphContract("vision", (pixels,), TensorSpec("image_embeds", "float32", ("batch", config.projection_dim)))


def text_contract(config: AlignConfig) -> GraphContract:
    """Contract of the text tower: token ids and attention mask."""
    shape = ("batch", "sequence")
    return GraphContract(
        "text",
        (TensorSpec("input_ids", "int64", shape), TensorSpec("attention_mask", "int64", shape)),
        TensorSpec("text_embeds", "float32", ("batch", config.projection_dim)),
    )
