"""Intel's NNCF, post-training with fast bias correction: of the model in OpenVINO, and of the ONNX graph itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nncf
import onnx
import openvino
from nncf.quantization.range_estimator import RangeEstimatorParametersSet
from worker import Job, work


def options(job: Job, **others: Any) -> dict[str, Any]:
    """`TRANSFORMER` is what its documentation asks for on such models: activations smoothed into
    weights, and the mixed preset."""
    feeds = job.feeds()
    kind = {"model_type": nncf.ModelType.TRANSFORMER} if job.tower == "text" else {}
    return {"calibration_dataset": nncf.Dataset(feeds), "subset_size": len(feeds), **kind, **others}


def for_openvino(job: Job, name: str, **others: Any) -> Path:
    """Defaults where nothing else is given: symmetric activations but where the model type says otherwise."""
    model = openvino.Core().read_model(str(job.graph))
    file = job.folder / f"{name}.xml"
    openvino.save_model(nncf.quantize(model, **options(job, **others)), str(file), compress_to_fp16=False)
    return file


def for_onnx(job: Job, name: str, **others: Any) -> Path:
    file = job.folder / f"{name}.onnx"
    onnx.save(nncf.quantize(onnx.load(job.graph), **options(job, **others)), str(file))
    return file


MIXED = {"preset": nncf.QuantizationPreset.MIXED}
# By default a range is the mean of the extremes of the samples.
HISTOGRAM = nncf.AdvancedQuantizationParameters(
    activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM
)
WAYS = {
    "OpenVINO, defaults": lambda job: for_openvino(job, "defaults"),
    "OpenVINO, mixed preset": lambda job: for_openvino(job, "mixed", **MIXED),
    "OpenVINO, mixed preset, ranges by histogram": lambda job: for_openvino(
        job, "histogram", advanced_parameters=HISTOGRAM, **MIXED
    ),
    "ONNX, mixed preset": lambda job: for_onnx(job, "mixed", **MIXED),
}

if __name__ == "__main__":
    work({"vision": WAYS, "text": WAYS}, ["nncf", "openvino", "onnx"])
