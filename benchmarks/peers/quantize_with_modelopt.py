"""NVIDIA ModelOpt's post-training quantization of ONNX graphs, calibrated on the CPU; everything else stays FP32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelopt.onnx.quantization import quantize
from onnxruntime.quantization import CalibrationDataReader
from worker import Feeds, Job, run_recipes


class Reader(Feeds, CalibrationDataReader):
    """The samples for its calibration."""


def quantized(job: Job, name: str, **options: Any) -> Path:
    file = job.folder / f"{name}.onnx"
    quantize(
        str(job.graph),
        calibration_data_reader=Reader(job.feeds()),
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(file),
        **options,
    )
    return file


RECIPES = {
    "max": lambda job: quantized(job, "max", calibration_method="max"),
    "entropy, the default": lambda job: quantized(job, "entropy", calibration_method="entropy"),
}

if __name__ == "__main__":
    run_recipes(
        {"vision": RECIPES, "text": RECIPES},
        ["nvidia-modelopt", "onnxruntime-gpu", "onnx"],
        slow=["entropy, the default"],
    )
