"""Measures what each INT8 recipe contributes to accuracy; writes ``benchmarks/results/ablation.json``.

    python -m benchmarks.measure_ablation [CHECKPOINT …] [--seeds 1 2 3]

The vision graph for CPUs, calibrated on 128 images of the kind that the checkpoint was trained on, drawn anew for each
seed, and compared with the float graph on 512 others. Every checkpoint has to come from reference/training. The result
of a checkpoint stays in the file until that checkpoint is measured again.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.observers import OBSERVERS, mse_after
from align_calibration.quant_params import UINT8, QuantParams
from align_calibration.run_instrumented import run_batches
from align_exporter.command import main as export
from align_exporter.int8.calibrate import Calibration
from align_exporter.int8.cpu_vision import quantize_vision_for_cpu, quantized_tensors
from align_exporter.int8.fidelity import embedding_error
from align_exporter.int8.visible_ranges import visible_through
from align_runtime.bundle import Bundle
from align_runtime.images import preprocess
from align_runtime.parity import cosines
from align_runtime.progress import Progress
from benchmarks.ablation import correct_biases, equalize
from benchmarks.result_files import RESULTS, ROOT, describe_machine, read_json, write_result
from support.calibration_images import draw_images

CALIBRATION_IMAGES, HELD_OUT_IMAGES, HELD_OUT_SEED = 128, 512, 1000

Scales = Mapping[str, QuantParams]


class Measurement:
    """The recipes on the vision graph in `file` and one draw of calibration images.

    Args:
        pixels, held_out: calibration and held-out images, uint8 (n, height, width, 3).
        folder: for temporary graphs.

    Attributes:
        observer: the best observer; None before `recipes` has run.
    """

    def __init__(self, file: Path, pixels: NDArray[np.uint8], held_out: NDArray[np.uint8], folder: Path) -> None:
        self._model, self._pixels, self._held_out, self._folder = ir.load(file), pixels, held_out, folder
        self._samples = [{"pixels": pixels[index : index + 1]} for index in range(len(pixels))]
        self._exact_held_out = self._embeddings(self._model, held_out)
        self._exact_calibration = self._embeddings(self._model, pixels)
        self.observer: str | None = None

    def recipes(self) -> Iterator[tuple[str, dict[str, float]]]:
        """The name of each recipe with its error and its 5th percentile of the cosine on the held-out images."""
        scales = self._scales(self._model)
        graphs = {key: self._quantized(self._model, chosen) for key, chosen in scales.items()}
        errors = {key: self._calibration_error(graph) for key, graph in graphs.items()}
        plain, exported = (
            min((key for key in errors if key[1] == behind_silu), key=lambda key: errors[key])
            for behind_silu in (False, True)
        )
        self.observer = exported[0]
        yield "min-max ranges", self._figures(graphs["min-max", False])
        yield "best observer", self._figures(graphs[plain])
        yield "best observer, MSE behind SiLU (as exported)", self._figures(graphs[exported])
        yield "weights only in INT8", self._figures(self._weights_only(graphs[exported]))
        corrected = self._model.clone()
        correct_biases(corrected, lambda model: self._quantized(model, scales[exported]), self._pixels, self._folder)
        yield "as exported, with bias correction", self._figures(self._quantized(corrected, scales[exported]))
        equal = self._model.clone()
        equalize(equal, self._pixels, self._folder)
        equal_scales = self._scales(equal)[exported]
        yield "as exported, with equalized residual streams", self._figures(self._quantized(equal, equal_scales))

    def _scales(self, model: ir.Model) -> dict[tuple[str, bool], Scales]:
        """By observer, and whether inputs of a SiLU get the range with the least error behind it."""
        calibration = Calibration(self._samples, self._folder, None, Progress(quiet=True))
        histograms = calibration.histograms(model, quantized_tensors(model.graph))
        seen = visible_through(model.graph)
        return {
            (name, behind_silu): {
                tensor: (mse_after(seen[tensor]) if behind_silu and tensor in seen else observe)(histogram, UINT8)
                for tensor, histogram in histograms.items()
            }
            for name, observe in OBSERVERS.items()
            for behind_silu in (False, True)
        }

    def _quantized(self, model: ir.Model, scales: Scales) -> ir.Model:
        quantized = model.clone()
        quantize_vision_for_cpu(quantized, scales)
        return quantized

    def _weights_only(self, quantized: ir.Model) -> ir.Model:
        """The graph without Q/DQ on activations."""
        model = quantized.clone()
        for node in [node for node in model.graph if node.op_type == "QuantizeLinear"]:
            (use,) = node.outputs[0].uses()
            ir.convenience.replace_all_uses_with(use.node.outputs[0], node.inputs[0])
        return model

    def _embeddings(self, model: ir.Model, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        batches = [{"pixels": pixels[start : start + 16]} for start in range(0, len(pixels), 16)]
        return np.concatenate(list(run_batches(model, batches, self._folder))).astype(np.float64)

    def _calibration_error(self, model: ir.Model) -> float:
        return embedding_error(self._embeddings(model, self._pixels), self._exact_calibration)

    def _figures(self, model: ir.Model) -> dict[str, float]:
        actual = self._embeddings(model, self._held_out)
        return {
            "error": embedding_error(actual, self._exact_held_out),
            "p5_cosine": float(np.quantile(cosines(actual, self._exact_held_out), 0.05)),
        }


def measure(checkpoint: Path, seeds: list[int]) -> dict[str, Any]:
    """The figures of every recipe, a list with one entry for each seed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if export([str(checkpoint), "-o", str(folder / "bundle")]):
            raise SystemExit(1)
        bundle = Bundle.open(folder / "bundle")

        def draw(count: int, seed: int) -> NDArray[np.uint8]:
            files = sorted(draw_images(folder / f"images-{seed}", count, seed).iterdir())
            return preprocess(files, bundle.manifest.preprocessing)

        held_out = draw(HELD_OUT_IMAGES, HELD_OUT_SEED)
        recipes: dict[str, list[dict[str, float]]] = {}
        observers = []
        for seed in seeds:
            pixels = draw(CALIBRATION_IMAGES, seed)
            measurement = Measurement(bundle.path("onnx/vision_model.onnx"), pixels, held_out, folder)
            for recipe, figures in measurement.recipes():
                print(f"{checkpoint.name}, seed {seed}: {recipe}: {figures}", flush=True)
                recipes.setdefault(recipe, []).append(figures)
            observers.append(measurement.observer)
    digest = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    return {
        "weights_sha256": digest,
        "calibration_images": CALIBRATION_IMAGES,
        "held_out_images": HELD_OUT_IMAGES,
        "seeds": seeds,
        "observers": observers,
        "recipes": recipes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path, default=[ROOT / "reference" / "align-tiny"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="a draw of images for each seed")
    options = parser.parse_args()
    file = RESULTS / "ablation.json"
    result = read_json(file) if file.is_file() else {"checkpoints": {}}
    for checkpoint in options.checkpoints:
        result["checkpoints"][checkpoint.name] = measure(checkpoint, options.seeds)
        result["machine"] = describe_machine()
        write_result("ablation", result)


if __name__ == "__main__":
    main()
