"""Intel's NNCF: post-training quantization with fast bias correction, of the OpenVINO model and of the ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nncf
import onnx
import openvino
from nncf.quantization.range_estimator import RangeEstimatorParametersSet
from worker import Job, run_recipes


def options(job: Job, **others: Any) -> dict[str, Any]:
    """Arguments of `nncf.quantize`.

    Its documentation asks for the model type `TRANSFORMER` on such models: SmoothQuant and the mixed preset.
    """
    feeds = job.feeds()
    kind = {"model_type": nncf.ModelType.TRANSFORMER} if job.tower == "text" else {}
    return {"calibration_dataset": nncf.Dataset(feeds), "subset_size": len(feeds), **kind, **others}


def for_openvino(job: Job, name: str, **others: Any) -> Path:
    """Quantizes the OpenVINO model. By default activations are symmetric, unless the model type says otherwise."""
    model = openvino.Core().read_model(str(job.graph))
    file = job.folder / f"{name}.xml"
    openvino.save_model(nncf.quantize(model, **options(job, **others)), str(file), compress_to_fp16=False)
    return file


def for_onnx(job: Job, name: str, **others: Any) -> Path:
    """Quantizes the ONNX graph."""
    file = job.folder / f"{name}.onnx"
    onnx.save(nncf.quantize(onnx.load(job.graph), **options(job, **others)), str(file))
    return file


MIXED = {"preset": nncf.QuantizationPreset.MIXED}
# By default a range is the mean of the samples' minima and maxima.
HISTOGRAM = nncf.AdvancedQuantizationParameters(
    activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM
)
RECIPES = {
    "OpenVINO, defaults": lambda job: for_openvino(job, "defaults"),
    "OpenVINO, mixed preset": lambda job: for_openvino(job, "mixed", **MIXED),
    "OpenVINO, mixed preset, ranges by histogram": lambda job: for_openvino(
        job, "histogram", advanced_parameters=HISTOGRAM, **MIXED
    ),
    "ONNX, mixed preset": lambda job: for_onnx(job, "mixed", **MIXED),
}

if __name__ == "__main__":
    run_recipes({"vision": RECIPES, "text": RECIPES}, ["nncf", "openvino", "onnx"])
