"""Loads a checkpoint in the layout of transformers: the files of a folder become an `AlignModel`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from align_reference.config import MAX_TEMPERATURE, MIN_TEMPERATURE, AlignConfig, known_part
from align_reference.files import CONFIG, find_weights, read_config
from align_reference.key_prefixes import prefix_hint, without_prefixes
from align_reference.listing import MAX_LIST_CHARACTERS, listing
from align_reference.model import AlignModel, empty_model
from align_reference.source import CheckpointSource, resolve
from align_reference.weights import read_weights
from align_runtime.errors import CheckpointError

STORED_DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # float32 represents them exactly

# Buffers that old versions of transformers saved. They hold the default inputs, which the code computes.
LEGACY_BUFFERS = frozenset({"text_model.embeddings.position_ids", "text_model.embeddings.token_type_ids"})
# How many batches a batch norm was trained on. Inference does not read it, and some converters omit it.
BATCH_COUNTER = ".num_batches_tracked"
# The embedding does not use the pooler, so a checkpoint may come without it; with one of the two it is incomplete.
POOLER = frozenset({"text_model.pooler.dense.weight", "text_model.pooler.dense.bias"})

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model, and a line for each way in which the keys of its weights were renamed."""

    model: AlignModel
    renamed: tuple[str, ...] = ()


def load_model(
    checkpoint: CheckpointSource | Path | str, *, allow_pickle: bool = False, ignore_unknown_keys: bool = False
) -> AlignModel:
    """The model of a checkpoint in evaluation mode: float32, contiguous, without gradients.

    Weights stored as float32 stay memory-mapped, so their file must not be overwritten while the model is in use;
    float16 and bfloat16 are converted, which is exact. A checkpoint without the weights of BERT's pooler gives a model
    without it: `text_model.pooler` and the `pooler_output` of the text tower are None. (transformers would fill in
    random weights.) The embeddings do not depend on the pooler.

    Args:
        checkpoint: a folder; or a string, which is resolved as by `resolve`: a folder or a hub id (``owner/name``).
        allow_pickle: whether to read weights that are only there as a Python pickle.
        ignore_unknown_keys: whether keys of ``config.json`` that are unknown here are ignored.

    Raises:
        CheckpointError: a file is missing or cannot be read; weights are missing, unexpected, of a wrong shape or type
            (all reported at once), or not finite; the temperature is not positive, or absurd.
        ConfigurationError: ``config.json`` has an unknown key or an unsupported value.
    """
    source = resolve(checkpoint, allow_pickle=allow_pickle) if isinstance(checkpoint, str) else checkpoint
    folder = source.folder if isinstance(source, CheckpointSource) else source
    ignored: list[str] = []
    config = read_configuration(folder, ignored if ignore_unknown_keys else None)
    loaded = read_model(folder, config, allow_pickle=allow_pickle)
    for note in (*ignored, *loaded.renamed):
        logger.warning("%s: %s", folder, note)
    return loaded.model


def read_model(folder: Path, config: AlignConfig, *, allow_pickle: bool = False) -> LoadedModel:
    """The model of `config` with the weights in `folder`, as `load_model` returns it.

    Raises:
        CheckpointError, ConfigurationError: as `load_model`.
    """
    model = empty_model(config)  # its weights are replaced below
    weights = read_weights(folder, find_weights(folder, allow_pickle=allow_pickle))
    weights, renamed = without_prefixes(weights, model.state_dict().keys(), str(folder))
    if weights.keys().isdisjoint(POOLER):
        model.text_model.pooler = None
    state = _fit(weights, model.state_dict(), str(folder))
    _refuse_non_finite(state, str(folder))
    temperature = float(state["temperature"])
    if not MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE:
        raise CheckpointError(
            f"{folder}: the weight temperature is {temperature:g}, which logits are divided by; expected "
            f"{MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}"
        )
    model.load_state_dict(state, assign=True)
    return LoadedModel(model.eval().requires_grad_(False), renamed)


def read_configuration(folder: Path, ignored: list[str] | None = None) -> AlignConfig:
    """The configuration in `folder`.

    Args:
        ignored: gets a line for each key that is unknown; without it they are refused.

    Raises:
        CheckpointError: there is no ``config.json``.
        ConfigurationError: it has an unknown key or an unsupported value.
    """
    values = read_config(folder)
    if ignored is not None:
        values = known_part(values, ignored)
    return AlignConfig.from_dict(values, str(folder / CONFIG))


def _fit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The state dict for a model with the state dict `expected` (meta tensors), or one error with all mismatches."""
    counters = {key for key in expected if key.endswith(BATCH_COUNTER)}
    wanted = expected.keys() - counters
    missing = sorted(wanted - weights.keys())
    unexpected = sorted(weights.keys() - expected.keys() - LEGACY_BUFFERS)
    common = sorted(wanted & weights.keys())
    misshapen = [
        f"{key} (expected {tuple(expected[key].shape)}, got {tuple(weights[key].shape)})"
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
    found = {kind: keys for kind, keys in kinds.items() if keys}
    if found:
        hint = prefix_hint(weights.keys(), expected.keys()) if missing else None
        room = MAX_LIST_CHARACTERS // len(found)
        problems = hint or "; ".join(f"{len(keys)} {kind}: {listing(keys, room)}" for kind, keys in found.items())
        raise CheckpointError(f"{where}: the weights do not fit {CONFIG}; {problems}")
    state = {key: weights[key].to(torch.float32).contiguous() for key in common}
    return state | {key: torch.zeros_like(expected[key], device="cpu") for key in counters}


def _refuse_non_finite(state: Mapping[str, Tensor], where: str) -> None:
    # Minimum and maximum are finite exactly if the whole tensor is, and computing them needs no memory.
    bad = [key for key, tensor in state.items() if not all(torch.isfinite(value) for value in torch.aminmax(tensor))]
    if bad:
        raise CheckpointError(f"{where}: {len(bad)} weights hold NaN or infinity: {listing(sorted(bad))}")
