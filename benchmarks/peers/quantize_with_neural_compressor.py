"""Intel's Neural Compressor for ONNX: static, SmoothQuant, and dynamic for texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnx_neural_compressor import data_reader
from onnx_neural_compressor.quantization import QuantFormat, config, quantize
from worker import Feeds, Job, run_recipes


class Reader(Feeds, data_reader.CalibrationDataReader):
    """The samples for its calibration."""


def quantized(job: Job, name: str, kind: type, **options: Any) -> Path:
    file = job.folder / f"{name}.onnx"
    calibration = {} if kind is config.DynamicQuantConfig else {"calibration_data_reader": Reader(job.feeds())}
    quantize(str(job.graph), str(file), kind(**calibration, **options))
    return file


ALL = {"calibration_sampling_size": 1024}
QDQ = {"quant_format": QuantFormat.QDQ, "per_channel": True, **ALL}
STATIC = {
    "static, defaults": lambda job: quantized(job, "static", config.StaticQuantConfig, **ALL),
    "static, QDQ per channel": lambda job: quantized(job, "channels", config.StaticQuantConfig, **QDQ),
    "SmoothQuant, QDQ per channel": lambda job: quantized(job, "smooth", config.SmoothQuantConfig, **QDQ),
}
DYNAMIC = {
    "dynamic, defaults": lambda job: quantized(job, "dynamic", config.DynamicQuantConfig),
    "dynamic, per channel": lambda job: quantized(job, "dynamic_channels", config.DynamicQuantConfig, per_channel=True),
}

if __name__ == "__main__":
    run_recipes({"vision": STATIC, "text": DYNAMIC | STATIC}, ["onnx-neural-compressor", "onnxruntime", "onnx"])
