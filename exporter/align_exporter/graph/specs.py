"""Which FP32 graphs a bundle holds: towers, targets, passes and where their weights go, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from align_exporter.checkpoint.read_checkpoint import Checkpoint
from align_exporter.graph.contract import GraphContract, text_contract, vision_contract
from align_exporter.graph.packed_text import PackedTextTower
from align_exporter.graph.passes.order import Step, text_steps, vision_steps
from align_exporter.graph.towers import NormalizedVisionTower, TextTower, VisionTower
from align_exporter.graph.weight_file import WeightFile
from align_runtime.graph_entry import ANY_TARGET

TEXT_WEIGHTS = "onnx/text_model.onnx_data"  # of both text graphs, under the Hub's name for external data


@dataclass(frozen=True)
class GraphSpec:
    """A graph to build. `weights` is where its weights go; None: into the graph itself.

    `runs_on_cpu` says whether the runtime takes it on a CPU, where INT8 is made of it.
    """

    contract: GraphContract
    tower: nn.Module
    steps: tuple[Step, ...]
    target: str = ANY_TARGET
    weights: WeightFile | None = None
    runs_on_cpu: bool = True

    @property
    def title(self) -> str:
        return self.contract.tower if self.target == ANY_TARGET else f"{self.contract.tower} for {self.target}"

    @property
    def file(self) -> str:
        suffix = "" if self.target == ANY_TARGET else f"_{self.target}"
        return f"onnx/{self.contract.tower}_model{suffix}.onnx"


def graph_specs(checkpoint: Checkpoint, pixel_input: str, folder: Path) -> list[GraphSpec]:
    """The graphs of `checkpoint` for a bundle in `folder`."""
    model, preprocessing = checkpoint.model, checkpoint.preprocessing
    vision: nn.Module
    if pixel_input == "uint8":
        vision = VisionTower(model, *preprocessing.scale_and_offset())
    else:
        vision = NormalizedVisionTower(model)
    images = vision_contract(model.config, preprocessing.output_size, pixel_input)
    texts, text_weights = text_contract(model.config), WeightFile(folder / TEXT_WEIGHTS)
    return [
        GraphSpec(images, vision.eval(), vision_steps(model.config)),
        GraphSpec(texts, TextTower(model).eval(), text_steps(model.config), weights=text_weights, runs_on_cpu=False),
        GraphSpec(
            texts, PackedTextTower(model).eval(), text_steps(model.config, "cpu"), target="cpu", weights=text_weights
        ),
    ]
