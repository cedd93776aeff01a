"""AMD Quark's post-training quantization of ONNX graphs: its named configurations for this kind of network.

The accurate ones learn the rounding of weights layer by layer (AdaRound).
"""

from __future__ import annotations

from pathlib import Path

from onnxruntime.quantization import CalibrationDataReader
from quark.onnx import ModelQuantizer
from quark.onnx.quantization.config.config import QConfig
from worker import Feeds, Job, run_recipes


class Reader(Feeds, CalibrationDataReader):
    """The samples for its calibration."""


def quantized(job: Job, configuration: str) -> Path:
    file = job.folder / f"{configuration.lower()}.onnx"
    config = QConfig.get_default_config(configuration)
    ModelQuantizer(config).quantize_model(str(job.graph), str(file), Reader(job.feeds()))
    return file


def named(*configurations: str) -> dict[str, object]:
    return {name: lambda job, name=name: quantized(job, name) for name in configurations}


RECIPES = {
    "vision": named("INT8_CNN_DEFAULT", "INT8_CNN_ACCURATE"),
    "text": named("INT8_TRANSFORMER_DEFAULT", "INT8_TRANSFORMER_ACCURATE"),
}

if __name__ == "__main__":
    run_recipes(RECIPES, ["amd-quark", "onnxruntime", "onnx"], slow=["INT8_CNN_ACCURATE", "INT8_TRANSFORMER_ACCURATE"])
