"""Qualcomm's AIMET for ONNX: ranges by extremes and by least error, and weights by the error of each layer's output."""

from __future__ import annotations

from pathlib import Path

import aimet_onnx
import onnx
from worker import Job, work


def quantized(job: Job, name: str, scheme: str, sequential: bool = False) -> Path:
    """Its default configuration, as Q/DQ nodes of ONNX."""
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


WAYS = {
    "min-max": lambda job: quantized(job, "min_max", "min_max"),
    "least error": lambda job: quantized(job, "enhanced", "tf_enhanced"),
    "least error, sequential MSE": lambda job: quantized(job, "sequential", "tf_enhanced", sequential=True),
}

if __name__ == "__main__":
    work(
        {"vision": WAYS, "text": WAYS},
        ["aimet-onnx", "onnxruntime", "onnx"],
        slow=["least error, sequential MSE"],
    )
