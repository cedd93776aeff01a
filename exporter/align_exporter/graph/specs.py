"""The FP32 graphs of a bundle as data: contract (inputs and output), tower, target, passes, and file of weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from align_exporter.checkpoint.read_checkpoint import Checkpoint
from align_exporter.graph.passes.order import Step, text_steps, vision_steps
from align_exporter.graph.towers import NormalizedVisionTower, PackedTextTower, TextTower, VisionTower
from align_exporter.graph.weight_file import WeightFile
from align_exporter.variants import FP32, Variant, variant_of
from align_reference.config import AlignConfig
from align_runtime.graph_entry import ANY_TARGET, CPU_TARGET, TensorSpec


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


TEXT_WEIGHTS = "onnx/text_model.onnx_data"  # of both text graphs, under the Hub's name for external data


@dataclass(frozen=True)
class GraphSpec:
    """An FP32 graph to build.

    Attributes:
        contract: its inputs and its output.
        tower: the module that is traced.
        steps: the passes that run on the traced graph.
        serves: the `base` of the variants that are made from it.
        target: the devices that run the FP32 graph itself.
        weights: the file that its weights go to; None where the graph holds them itself.
    """

    contract: GraphContract
    tower: nn.Module
    steps: tuple[Step, ...]
    serves: tuple[str, ...]
    target: str = ANY_TARGET
    weights: WeightFile | None = None

    @property
    def variant(self) -> Variant:
        """Its row in the table."""
        return variant_of(FP32, self.target)

    @property
    def title(self) -> str:
        """How progress calls it."""
        return self.variant.title(self.contract.tower)

    @property
    def file(self) -> str:
        """Its path in the bundle."""
        return self.variant.file(self.contract.tower)


def graph_specs(checkpoint: Checkpoint, pixel_input: str, folder: Path) -> list[GraphSpec]:
    """The graphs of `checkpoint` for a bundle in `folder`."""
    model, preprocessing = checkpoint.model, checkpoint.preprocessing
    vision: nn.Module
    if pixel_input == "uint8":
        vision = VisionTower(model, *preprocessing.scale_and_offset())
    else:
        vision = NormalizedVisionTower(model)
    images = vision_contract(model.config, preprocessing.output_size, pixel_input)
    texts = text_contract(model.config)
    weights = WeightFile(folder / TEXT_WEIGHTS)
    padded, packed = TextTower(model).eval(), PackedTextTower(model).eval()
    return [
        GraphSpec(images, vision.eval(), vision_steps(model.config), serves=(ANY_TARGET, CPU_TARGET)),
        GraphSpec(texts, padded, text_steps(model.config), serves=(ANY_TARGET,), weights=weights),
        GraphSpec(
            texts,
            packed,
            text_steps(model.config, CPU_TARGET),
            serves=(CPU_TARGET,),
            target=CPU_TARGET,
            weights=weights,
        ),
    ]
