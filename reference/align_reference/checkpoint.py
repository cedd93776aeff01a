"""Checkpoints of ALIGN in the layout of transformers: the files of a folder become an `AlignModel`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from align_reference.config import AlignConfig
from align_reference.files import CONFIG, file_names, find_weights
from align_reference.listing import listing
from align_reference.model import AlignModel
from align_reference.source import CheckpointSource
from align_reference.weights import read_weights
from align_runtime.errors import CheckpointError

STORED_DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # those that float32 holds exactly

# Buffers that older transformers saved. Their values are what the code computes anyway.
LEGACY_BUFFERS = frozenset({"text_model.embeddings.position_ids", "text_model.embeddings.token_type_ids"})
# How many batches a batch norm was trained on. Inference does not read it; some converters leave it out.
BATCH_COUNTER = ".num_batches_tracked"
# The pooler is not on the way to an embedding, so a checkpoint stripped of it is whole. It is then filled with zeros.
POOLER = frozenset({"text_model.pooler.dense.weight", "text_model.pooler.dense.bias"})


def load_model(source: CheckpointSource | Path, *, allow_pickle: bool = False) -> AlignModel:
    """The model of a checkpoint in evaluation mode: float32, contiguous, without gradients.

    Weights stored as float32 stay memory-mapped, so the file must not be overwritten while the model lives; float16
    and bfloat16 are converted, which is exact.

    Raises:
        CheckpointError: a file is missing or damaged; weights are missing, unexpected, of the wrong shape or type (all
            are listed at once), or not finite; a temperature of 0.
        ConfigurationError: ``config.json`` is not understood.
    """
    folder = source.folder if isinstance(source, CheckpointSource) else source
    if CONFIG not in file_names(folder):
        raise CheckpointError(f"{folder} holds no {CONFIG}; give the folder of a transformers checkpoint")
    config = AlignConfig.from_file(folder / CONFIG)
    with torch.device("meta"):  # no memory and no initialisation for weights that are about to be replaced
        model = AlignModel(config)
    weights = read_weights(folder, find_weights(folder, allow_pickle=allow_pickle))
    state = _fit(weights, model.state_dict(), str(folder))
    _refuse_non_finite(state, str(folder))
    if not state["temperature"].any():
        raise CheckpointError(f"{folder}: the weight temperature is 0; logits are divided by it")
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def _fit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The state dict for a model that expects `expected` (meta tensors), or one error for all that does not fit."""
    optional = {key for key in expected if key.endswith(BATCH_COUNTER)}
    if weights.keys().isdisjoint(POOLER):
        optional |= POOLER
    wanted = expected.keys() - optional
    missing = sorted(wanted - weights.keys())
    unexpected = sorted(weights.keys() - expected.keys() - LEGACY_BUFFERS)
    common = sorted(wanted & weights.keys())
    misshapen = [
        f"{key} (in the file {tuple(weights[key].shape)}, by {CONFIG} {tuple(expected[key].shape)})"
        for key in common
        if weights[key].shape != expected[key].shape
    ]
    mistyped = [f"{key} ({weights[key].dtype})" for key in common if weights[key].dtype not in STORED_DTYPES]
    kinds = {
        "missing": missing,
        "unexpected": unexpected,
        "of the wrong shape": misshapen,
        "neither float32, float16 nor bfloat16": mistyped,
    }
    problems = [f"{len(keys)} {kind}: {listing(keys)}" for kind, keys in kinds.items() if keys]
    if problems:
        raise CheckpointError(f"{where}: the weights do not fit {CONFIG}; {'; '.join(problems)}")
    state = {key: weights[key].to(torch.float32).contiguous() for key in common}
    return state | {key: torch.zeros(expected[key].shape, dtype=expected[key].dtype) for key in optional}


def _refuse_non_finite(state: Mapping[str, Tensor], where: str) -> None:
    # The extremes of a tensor are finite exactly if all of it is, and finding them takes no memory.
    bad = [
        key for key, tensor in state.items() if not all(torch.isfinite(extreme) for extreme in torch.aminmax(tensor))
    ]
    if bad:
        raise CheckpointError(f"{where}: {len(bad)} weights hold NaN or infinity: {listing(sorted(bad))}")
