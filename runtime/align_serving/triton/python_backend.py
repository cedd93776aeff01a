"""The code of ``model.py`` in a repository: runs in the process that Triton starts for each instance.

It is called with all requests that Triton put into one batch. They are embedded together. A text or image that cannot
be used fails its own request alone; a request with the parameter ``on_error: "skip"`` gets a row of zeros for it, and
the reason in the output ``ERROR``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

from align_runtime.devices import backend_of
from align_runtime.errors import AlignError, InputError
from align_runtime.model import load
from align_serving.triton.request_rows import Answer, answers, on_error_of, texts_of, usable_rows
from align_serving.triton.string_models import BUNDLE, EMBEDDING, ERROR, INPUTS, SETTINGS


class TritonPythonModel:
    """What Triton calls; its name and methods are Triton's."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the bundle of this version; Triton runs the golden inputs afterwards."""
        folder = Path(args["model_repository"]) / args["model_version"]
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        if not backend_of(settings["device"]).on_cpu:
            settings["device"] += f":{args['model_instance_device_id']}"
        (self._tower,) = settings["towers"]
        self._model = load(folder / BUNDLE, **settings)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each of `requests`, in their order."""
        tensors = [triton.get_input_tensor_by_name(request, INPUTS[self._tower]) for request in requests]
        rows = [list(tensor.as_numpy().reshape(-1)) for tensor in tensors]
        flat = [value for values in rows for value in values]
        try:
            found = self._embed(flat)
            skips = [on_error_of(request.parameters()) for request in requests]
        except AlignError as error:  # the device: no request of this batch can be answered
            return [_failed(error, triton.TritonError.INTERNAL) for _ in requests]
        divided = answers(found, [len(values) for values in rows], skips, self._model.info.embedding_dim)
        return [_response(request, answer) for request, answer in zip(requests, divided, strict=True)]

    def finalize(self) -> None:
        """Frees the model, when Triton unloads it."""
        self._model.close()

    def _embed(self, values: list[bytes]) -> Any:
        if self._tower == "vision":
            return self._model.embed_images(values, on_error="skip")
        return usable_rows(texts_of(values), lambda texts: self._model.embed_texts(texts, on_error="skip"))


def _response(request: Any, answer: Answer | InputError) -> Any:
    if isinstance(answer, InputError):
        return _failed(answer, triton.TritonError.INVALID_ARG)
    tensors = {
        EMBEDDING: answer.embeddings,
        ERROR: np.array([[reason.encode()] for reason in answer.reasons], dtype=np.object_),
    }
    wanted = set(request.requested_output_names())
    return triton.InferenceResponse([triton.Tensor(name, value) for name, value in tensors.items() if name in wanted])


def _failed(error: AlignError, code: Any) -> Any:
    return triton.InferenceResponse(error=triton.TritonError(str(error), code))
