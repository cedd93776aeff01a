"""Measures a bundle on a GPU against PyTorch; writes the cases as JSON.

    python -m benchmarks.gpu.measure CHECKPOINT BUNDLE -o CASES.json [--rounds 40] [--devices cuda tensorrt]

From pixels or tokens in host memory to embeddings in host memory, for every candidate: PyTorch eager and torch.compile
in FP16 with channels_last, and the bundle's variants on each device. Timing is interleaved; the file holds the seconds
of every round and is written after every case.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from align_reference.checkpoint import load_model
from align_reference.model import AlignModel, unit_length
from align_reference.text import attention_bias
from align_runtime.backends import open_graph
from align_runtime.bundle import Bundle
from benchmarks.timing import Candidate, time_case

BATCHES = (1, 8, 32)
LENGTH = 16
HALF = torch.float16
Inputs = dict[str, NDArray[Any]]


class HalfVisionTower(nn.Module):
    """As `align_exporter.graph.towers.VisionTower`, in FP16 with channels_last."""

    def __init__(self, model: AlignModel, scale: NDArray[np.float64], offset: NDArray[np.float64]) -> None:
        super().__init__()
        self.vision_model = model.vision_model.to(HALF).to(memory_format=torch.channels_last)
        self.scale = nn.Buffer(torch.tensor(scale, dtype=HALF).reshape(1, 3, 1, 1))
        self.offset = nn.Buffer(torch.tensor(offset, dtype=HALF).reshape(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        values = pixels.permute(0, 3, 1, 2).to(HALF) * self.scale + self.offset
        return unit_length(self.vision_model(values).pooler_output.float())


class HalfTextTower(nn.Module):
    """As `align_exporter.graph.towers.TextTower`, in FP16."""

    def __init__(self, model: AlignModel) -> None:
        super().__init__()
        self.text_model = model.text_model.to(HALF)
        self.text_projection = model.text_projection.to(HALF)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.text_model.embeddings(input_ids)
        bias = attention_bias(attention_mask, HALF)
        *layers, last = self.text_model.encoder.layer
        for layer in layers:
            hidden = layer(hidden, hidden, bias)
        first = last(hidden[:, :1], hidden, bias)
        return unit_length(self.text_projection(first[:, 0]).float())


def torch_candidates(tower: nn.Module, inputs: Inputs, device: str, mode: str) -> dict[str, Candidate]:
    """`tower` eager and, unless `mode` is ``"none"``, compiled; inputs go through pinned memory, as ours do."""
    module = tower.eval().to(device)
    pinned = [torch.from_numpy(values) for values in inputs.values()]
    if device == "cuda":
        pinned = [tensor.pin_memory() for tensor in pinned]

    def candidate(call: Callable[..., Tensor]) -> Candidate:
        def run() -> NDArray[np.float32]:
            with torch.inference_mode():
                return call(*(tensor.to(device, non_blocking=True) for tensor in pinned)).cpu().numpy()

        return run

    found = {"torch eager": candidate(module)}
    if mode != "none":
        found[f"torch.compile {mode}"] = candidate(torch.compile(module, mode=mode, dynamic=False))
    return found


def text_inputs(bundle: Bundle, batch: int) -> Inputs:
    """Random tokens without padding, int64 (batch, `LENGTH`)."""
    vocabulary = bundle.manifest.model.vocab_size
    ids = np.random.default_rng(batch).integers(1, vocabulary, size=(batch, LENGTH), dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def vision_inputs(bundle: Bundle, batch: int) -> Inputs:
    """Random images, uint8 (batch, height, width, 3); time does not depend on their content."""
    height, width = bundle.manifest.preprocessing.output_size
    return {"pixels": np.random.default_rng(batch).integers(0, 256, size=(batch, height, width, 3), dtype=np.uint8)}


def measure(checkpoint: Path, bundle: Bundle, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One case for each tower and batch."""
    torch_device = "cuda" if torch.cuda.is_available() else "cpu"
    batches, rounds = ((1, 2), 2) if options.dry else (BATCHES, options.rounds)
    for tower, make in (("vision", vision_inputs), ("text", text_inputs)):
        model = load_model(checkpoint)
        scale, offset = bundle.manifest.preprocessing.scale_and_offset()
        half = HalfVisionTower(model, scale, offset) if tower == "vision" else HalfTextTower(model)
        with ExitStack() as stack:
            runners = {}
            for device in options.devices:
                variants = dict.fromkeys(graph.variant for graph in bundle.graphs_on(device))
                for variant in options.precisions or variants:
                    opened = open_graph(bundle, bundle.graph(tower, variant, device), device, None, check_hashes=False)
                    runners[f"{device} {variant}"] = stack.enter_context(closing(opened))
            for batch in batches:
                inputs = make(bundle, batch)
                candidates = torch_candidates(half, inputs, torch_device, "none" if options.dry else options.compile)
                candidates |= {
                    name: lambda runner=runner, inputs=inputs: runner.run(inputs) for name, runner in runners.items()
                }
                yield {"tower": tower, "batch": batch, **time_case(f"{tower} {batch}", candidates, rounds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=40, help="rounds, an even number (default: 40)")
    parser.add_argument("--devices", nargs="+", default=["cuda", "tensorrt"])
    parser.add_argument("--precisions", nargs="+", default=[], help="(default: all of the bundle)")
    parser.add_argument("--compile", default="reduce-overhead", help="mode of torch.compile, or none")
    parser.add_argument("--dry", action="store_true", help="two rounds of small batches, nothing compiled")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    cases = []
    for case in measure(options.checkpoint, Bundle.open(options.bundle), options):
        cases.append(case)
        options.output.write_text(json.dumps(cases, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
