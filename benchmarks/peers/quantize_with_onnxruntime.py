"""onnxruntime.quantization after its recommended pre-processing: static for images, static and dynamic for texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime.quantization as peer
from onnxruntime.quantization.shape_inference import quant_pre_process
from worker import Feeds, Job, run_recipes


class Reader(Feeds, peer.CalibrationDataReader):
    """The samples for its calibration."""


# Recommended by its documentation for x86 with VNNI; the defaults are signed activations and weights per tensor.
U8S8 = {"activation_type": peer.QuantType.QUInt8, "weight_type": peer.QuantType.QInt8, "per_channel": True}


def prepared(job: Job) -> Path:
    """The graph after shape inference and optimization, the recommended steps before quantization."""
    file = job.folder / "prepared.onnx"
    if not file.exists():
        quant_pre_process(str(job.graph), str(file), skip_symbolic_shape=True)
    return file


def static(job: Job, name: str, **options: Any) -> Path:
    file = job.folder / f"{name}.onnx"
    peer.quantize_static(str(prepared(job)), str(file), Reader(job.feeds()), **options)
    return file


def dynamic(job: Job, name: str, **options: Any) -> Path:
    file = job.folder / f"{name}.onnx"
    peer.quantize_dynamic(str(prepared(job)), str(file), **options)
    return file


STATIC = {
    "static, defaults": lambda job: static(job, "static"),
    "static, per channel": lambda job: static(job, "static_channels", per_channel=True),
    "static, U8S8 per channel": lambda job: static(job, "static_u8s8", **U8S8),
    "static, U8S8 per channel, entropy": lambda job: static(
        job, "static_entropy", calibrate_method=peer.CalibrationMethod.Entropy, **U8S8
    ),
    "static, U8S8 per channel, percentile": lambda job: static(
        job, "static_percentile", calibrate_method=peer.CalibrationMethod.Percentile, **U8S8
    ),
}
DYNAMIC = {
    "dynamic, defaults": lambda job: dynamic(job, "dynamic"),
    "dynamic, per channel": lambda job: dynamic(job, "dynamic_channels", per_channel=True),
}

if __name__ == "__main__":
    run_recipes({"vision": STATIC, "text": DYNAMIC | STATIC}, ["onnxruntime", "onnx"])
