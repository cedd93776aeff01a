"""What a client and a graph on a server have to agree on, and what both call a model."""

from __future__ import annotations

import hashlib
import json

from align_runtime.bundle import Bundle
from align_runtime.graph_entry import Graph, TensorSpec
from align_runtime.tokenizer import FILE
from align_serving.triton.model_config import Tensor

TYPES = {"uint8": "TYPE_UINT8", "int64": "TYPE_INT64", "float32": "TYPE_FP32"}  # of a graph → of `ModelConfig`
DATATYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}  # → of a request
STRING_MODELS = {"vision": "images", "text": "texts"}
# Parameters of a graph's model that clients read.
CONTRACT, LENGTHS, BATCHES, PRECISION = "align_contract", "align_lengths", "align_batches", "align_precision"


def graph_model_name(name: str, tower: str) -> str:
    """Of the model of a graph: ``align_text_tower``."""
    return f"{name}_{tower}_tower"


def string_model_name(name: str, tower: str) -> str:
    """Of the model that takes strings or encoded images: ``align_texts``, ``align_images``."""
    return f"{name}_{STRING_MODELS[tower]}"


def tensor(spec: TensorSpec) -> Tensor:
    """An input or output of a graph without its batch, as Triton describes it."""
    return Tensor(
        name=spec.name,
        data_type=TYPES[spec.dtype],
        dims=tuple(-1 if isinstance(size, str) else size for size in spec.shape[1:]),
    )


def contract_of(bundle: Bundle, graph: Graph) -> str:
    """A sha256 of all that inputs of `graph` depend on: equal ones mean that a client prepares what the graph takes."""
    manifest = bundle.manifest
    facts: dict[str, object] = {
        "inputs": [[spec.name, spec.dtype, spec.shape] for spec in graph.inputs],
        "outputs": [[spec.name, spec.dtype, spec.shape] for spec in graph.outputs],
    }
    if graph.tower == "vision":
        facts["preprocessing"] = manifest.preprocessing.to_json()
    else:
        facts["tokenizer"] = manifest.files[FILE].sha256
        facts["max_length"], facts["pad_token_id"] = manifest.model.max_length, manifest.model.pad_token_id
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
