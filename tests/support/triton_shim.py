"""A repository of graphs for a server without the ONNX Runtime backend: each ``model.onnx`` behind a Python model.

Everything else of ``config.pbtxt`` stays as it was written: names, types, shapes, batching and warm-up are Triton's.
"""

from __future__ import annotations

import shutil
from pathlib import Path

MODEL = """
import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args):
        file = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        config = json.loads(args["model_config"])
        self.inputs = [entry["name"] for entry in config["input"]]
        (self.output,) = [entry["name"] for entry in config["output"]]

    def execute(self, requests):
        rows = [
            {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            for request in requests
        ]
        joined = {name: np.concatenate([values[name] for values in rows]) for name in self.inputs}
        (found,) = self.session.run([self.output], joined)
        ends = np.cumsum([len(values[self.inputs[0]]) for values in rows])[:-1]
        return [triton.InferenceResponse([triton.Tensor(self.output, part)]) for part in np.split(found, ends)]
"""


def onto_python(repository: Path, target: Path) -> Path:
    """A copy of `repository` at `target` whose models are of the Python backend."""
    shutil.copytree(repository, target)
    for config in target.glob("*/config.pbtxt"):
        text = config.read_text(encoding="utf-8")
        assert 'backend: "onnxruntime"' in text
        config.write_text(text.replace('backend: "onnxruntime"', 'backend: "python"'), encoding="utf-8")
        (config.parent / "1" / "model.py").write_text(MODEL, encoding="utf-8")
    return target
