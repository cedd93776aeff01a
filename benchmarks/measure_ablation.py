"""Measures what each way of recovering INT8's accuracy contributes; writes ``benchmarks/results/recovery.json``.

    python benchmarks/measure_recovery.py [reference/align-tiny …] [--seeds 1 2 3]

The vision graph for CPUs, calibrated on 128 images of the kind that the checkpoint was trained on, a draw for each
seed, and compared with the float graph on 512 others. Every checkpoint has to be one of training.train's; a result
stays in the file until its checkpoint is measured again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.observers import OBSERVERS, least_error_behind_swish
from align_calibration.quant_params import UINT8, QuantParams
from align_calibration.run_instrumented import run_batches
from align_exporter.command import main as export
from align_exporter.int8.calibrate import swish_inputs
from align_exporter.int8.calibration import Calibration
from align_exporter.int8.cpu_vision import quantize_statically, quantized_tensors
from align_exporter.int8.fidelity import embedding_error
from align_runtime.bundle import Bundle
from align_runtime.console import Progress
from align_runtime.images import preprocess
from align_runtime.parity import cosines
from benchmarks.machine import describe
from benchmarks.recovery import correct_biases, equalise
from support.calibration_images import draw_images

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "recovery.json"
CALIBRATED, HELD_OUT, HELD_OUT_SEED = 128, 512, 1000


class Measurement:
    """One draw of images for the vision graph in `file`."""

    def __init__(self, file: Path, pixels: NDArray[np.uint8], held_out: NDArray[np.uint8], folder: Path) -> None:
        self._model, self._pixels, self._held_out, self._folder = ir.load(file), pixels, held_out, folder
        self._samples = [{"pixels": pixels[index : index + 1]} for index in range(len(pixels))]
        self._exact = self._embeddings(self._model, held_out)
        self._here = self._embeddings(self._model, pixels)

    def rows(self) -> Iterator[tuple[str, dict[str, float]]]:
        """Ways and their figures."""
        scales = self._scales(self._model)
        graphs = {way: self._quantized(self._model, chosen) for way, chosen in scales.items()}
        errors = {way: self._error(graph) for way, graph in graphs.items()}
        plain, behind = (min((way for way in errors if way[1] == kind), key=errors.get) for kind in (False, True))
        self.observer = behind[0]
        yield "extremes as ranges", self._figures(graphs["min-max", False])
        yield "the best of the observers", self._figures(graphs[plain])
        yield "and ranges behind swishes, as exported", self._figures(graphs[behind])
        yield "weights alone in INT8", self._figures(self._weights_alone(graphs[behind]))
        corrected = self._model.clone()
        correct_biases(corrected, lambda model: self._quantized(model, scales[behind]), self._pixels, self._folder)
        yield "as exported, with bias correction", self._figures(self._quantized(corrected, scales[behind]))
        equal = self._model.clone()
        equalise(equal, self._pixels, self._folder)
        again = self._scales(equal)[behind]
        yield "as exported, with equalised residual streams", self._figures(self._quantized(equal, again))

    def _scales(self, model: ir.Model) -> dict[tuple[str, bool], dict[str, QuantParams]]:
        """By observer and whether tensors before a swish have their own."""
        calibration = Calibration(self._samples, self._folder, None, Progress(quiet=True))
        histograms = calibration.histograms(model, quantized_tensors(model.graph))
        swished = swish_inputs(model.graph)
        return {
            (name, behind): {
                tensor: (least_error_behind_swish if behind and tensor in swished else observe)(histogram, UINT8)
                for tensor, histogram in histograms.items()
            }
            for name, observe in OBSERVERS.items()
            for behind in (False, True)
        }

    def _quantized(self, model: ir.Model, scales: dict[str, QuantParams]) -> ir.Model:
        quantized = model.clone()
        quantize_statically(quantized, scales)
        return quantized

    def _weights_alone(self, quantized: ir.Model) -> ir.Model:
        """The graph without the pairs around activations."""
        model = quantized.clone()
        for node in [node for node in model.graph if node.op_type == "QuantizeLinear"]:
            (use,) = node.outputs[0].uses()
            ir.convenience.replace_all_uses_with(use.node.outputs[0], node.inputs[0])
        return model

    def _embeddings(self, model: ir.Model, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        batches = [{"pixels": pixels[start : start + 16]} for start in range(0, len(pixels), 16)]
        return np.concatenate(list(run_batches(model, batches, self._folder))).astype(np.float64)

    def _error(self, model: ir.Model) -> float:
        return embedding_error(self._embeddings(model, self._pixels), self._here)

    def _figures(self, model: ir.Model) -> dict[str, float]:
        actual = self._embeddings(model, self._held_out)
        return {
            "error": embedding_error(actual, self._exact),
            "p5_cosine": float(np.quantile(cosines(actual, self._exact), 0.05)),
        }


def measure(checkpoint: Path, seeds: list[int]) -> dict[str, Any]:
    """Figures of every way, a list with one entry for each seed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if export([str(checkpoint), "-o", str(folder / "bundle")]):
            raise SystemExit(1)
        bundle = Bundle.open(folder / "bundle")

        def drawn(count: int, seed: int) -> NDArray[np.uint8]:
            files = sorted(draw_images(folder / f"images-{seed}", count, seed).iterdir())
            return preprocess(files, bundle.manifest.preprocessing)

        held_out = drawn(HELD_OUT, HELD_OUT_SEED)
        ways: dict[str, list[dict[str, float]]] = {}
        observers = []
        for seed in seeds:
            measurement = Measurement(bundle.path("onnx/vision_model.onnx"), drawn(CALIBRATED, seed), held_out, folder)
            for way, figures in measurement.rows():
                print(f"{checkpoint.name}, seed {seed}: {way}: {figures}", flush=True)
                ways.setdefault(way, []).append(figures)
            observers.append(measurement.observer)
    digest = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    return {"weights_sha256": digest, "seeds": seeds, "observers": observers, "ways": ways}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path, default=[ROOT / "reference" / "align-tiny"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    options = parser.parse_args()
    result = json.loads(RESULT.read_text()) if RESULT.is_file() else {"checkpoints": {}}
    for checkpoint in options.checkpoints:
        result["checkpoints"][checkpoint.name] = measure(checkpoint, options.seeds)
        result["machine"] = describe()
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
