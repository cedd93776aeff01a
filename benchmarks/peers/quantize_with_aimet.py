"""Qualcomm's AIMET for ONNX: min-max and MSE ranges (tf_enhanced), and weights by sequential MSE."""

from __future__ import annotations

from pathlib import Path

import aimet_onnx
import onnx
from worker import Job, run_recipes


def quantized(job: Job, name: str, scheme: str, sequential: bool = False) -> Path:
    """Quantizes with the default configuration; writes an ONNX file with Q/DQ."""
    feeds = job.feeds()
    sim = aimet_onnx.QuantizationSimModel(
        onnx.load(job.graph), quant_scheme=scheme, dummy_input=feeds[0], providers=["CPUExecutionProvider"]
    )
    if sequential:
        aimet_onnx.apply_seq_mse(sim, feeds)
    sim.compute_encodings(feeds)
    file = job.folder / f"{name}.onnx"
    onnx.save(sim.to_onnx_qdq(), str(file))
    return file


RECIPES = {
    "min-max": lambda job: quantized(job, "min_max", "min_max"),
    "tf_enhanced": lambda job: quantized(job, "enhanced", "tf_enhanced"),
    "tf_enhanced, sequential MSE": lambda job: quantized(job, "sequential", "tf_enhanced", sequential=True),
}

if __name__ == "__main__":
    run_recipes(
        {"vision": RECIPES, "text": RECIPES},
        ["aimet-onnx", "onnxruntime", "onnx"],
        slow=["tf_enhanced, sequential MSE"],
    )
