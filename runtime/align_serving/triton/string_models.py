"""Models of Triton's Python backend: strings or encoded images in, embeddings out, computed by this runtime.

A version's folder has the bundle, with the one tower and precision, ``settings.json`` and a ``model.py`` that imports
`align_serving.triton.python_backend`. A request has a row for each text or image.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path

from align_runtime.bundle import Bundle
from align_runtime.golden import Golden
from align_runtime.graph_entry import Graph
from align_runtime.trimming import trim
from align_serving.triton.contract import string_model_name
from align_serving.triton.model_config import ModelConfig, Tensor, WarmUp
from align_serving.triton.options import PYTHON, ServingOptions
from align_serving.triton.served_model import ServedModel, as_bytes_tensor, batches_for, longest_text, warm_up_batches

INPUTS = {"vision": "IMAGE", "text": "TEXT"}
EMBEDDING, ERROR = "EMBEDDING", "ERROR"
BUNDLE, SETTINGS = "bundle", "settings.json"
# A file of this name keeps Python from writing bytecode beside model.py: a server that polls would see a change, and
# load the model once more.
NO_BYTECODE = "__pycache__"
REMARKS = {
    "vision": "Encoded images (JPEG, PNG, …) to embeddings, float32 rows of unit length",
    "text": "Texts (UTF-8) to embeddings, float32 rows of unit length",
}


def string_model(bundle: Bundle, tower: str, options: ServingOptions, golden: Golden) -> ServedModel:
    """The model of `tower`.

    Raises:
        ConfigurationError: the bundle has no such graph for the device.
    """
    assert options.device is not None
    graph = bundle.graph(tower, options.precision, options.device)
    preferred = batches_for(bundle, graph, options)
    value = golden.texts[longest_text(golden)].encode() if tower == "text" else golden.images[0].read_bytes()
    dim = bundle.manifest.model.embedding_dim
    config = ModelConfig(
        name=string_model_name(options.name, tower),
        backend=PYTHON,
        remark=f"{REMARKS[tower]}. Of {bundle.manifest.provenance.name}, by align-triton.",
        inputs=(Tensor(INPUTS[tower], "TYPE_STRING", (1,)),),
        outputs=(Tensor(EMBEDDING, "TYPE_FP32", (dim,)), Tensor(ERROR, "TYPE_STRING", (1,))),
        max_batch=preferred[-1],
        preferred=preferred,
        queue_delay=options.queue_delay,
        queue_size=options.queue_size,
        on_gpu=options.on_gpu,
        instances=options.instances,
        warm_ups=tuple(
            WarmUp(batch, {INPUTS[tower]: "golden"}, {INPUTS[tower]: (1,)}, {"golden": as_bytes_tensor(value)})
            for batch in warm_up_batches(preferred)
        ),
    )
    return ServedModel(config, graph, f"{INPUTS[tower]} {dim}", partial(_write, bundle, graph, options))


def settings_of(graph: Graph, options: ServingOptions) -> dict[str, object]:
    """The keywords of `align_runtime.load` for a version."""
    return {
        "towers": [graph.tower],
        "precision": options.precision,
        "device": options.device,
        "threads": options.threads,
        "alpha": options.images.alpha,
        "formats": list(options.images.formats),
        "max_pixels": options.images.max_pixels,
    }


def _write(bundle: Bundle, graph: Graph, options: ServingOptions, folder: Path) -> None:
    trim(bundle, folder / BUNDLE, (graph.tower,), (graph.variant,), options.link)
    (folder / SETTINGS).write_text(f"{json.dumps(settings_of(graph, options), indent=1)}\n", encoding="utf-8")
    with as_file(files("align_serving.triton") / "templates" / "model.py") as template:
        shutil.copyfile(template, folder / "model.py")
    (folder / NO_BYTECODE).touch()
