"""Checkpoints of ALIGN in the layout of transformers: a local folder or a hub id becomes an `AlignModel`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from align_reference import hub
from align_reference.config import AlignConfig
from align_reference.files import CONFIG, file_names, find_weights, fingerprint
from align_reference.listing import listing
from align_reference.model import AlignModel
from align_reference.weights import read_weights
from align_runtime.errors import CheckpointError, ConfigurationError

__all__ = ["CheckpointSource", "fingerprint", "load_model", "resolve"]

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)

STORED_DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # those that float32 holds exactly

# Buffers that older transformers saved. Their values are what the code computes anyway.
LEGACY_BUFFERS = frozenset({"text_model.embeddings.position_ids", "text_model.embeddings.token_type_ids"})
# How many batches a batch norm was trained on. Inference does not read it; some converters leave it out.
BATCH_COUNTER = ".num_batches_tracked"
# The pooler is not on the way to an embedding, so a checkpoint stripped of it is whole. It is then filled with zeros.
POOLER = frozenset({"text_model.pooler.dense.weight", "text_model.pooler.dense.bias"})


@dataclass(frozen=True)
class CheckpointSource:
    """Where a checkpoint was found.

    Attributes:
        folder: the local folder of its files.
        name: the folder's name, or the hub id.
        revision: the commit for a hub id, None for a local folder.
    """

    folder: Path
    name: str
    revision: str | None


def resolve(checkpoint: str, revision: str | None = None, *, allow_pickle: bool = False) -> CheckpointSource:
    """Finds the folder of a checkpoint, downloading it where `checkpoint` is a hub id (``owner/name``).

    An existing folder always goes first. Server, cache, token and offline mode are huggingface_hub's own settings
    (``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN``, ``HF_HUB_OFFLINE``). `revision` is a branch, tag or commit;
    `allow_pickle` also admits a hub repository without safetensors.

    Raises:
        CheckpointError: nothing is there, or the hub does not give it.
        ConfigurationError: `revision` was given with a local folder.
    """
    path = Path(checkpoint).expanduser() if checkpoint.startswith("~/") else Path(checkpoint)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as reason:
        raise CheckpointError(f"{checkpoint!r} cannot be read: {reason.strerror}") from None
    if checkpoint and is_folder:
        if revision is not None:
            raise ConfigurationError(
                f"revision {revision!r} was given with the local folder {checkpoint}; only a hub id has revisions"
            )
        return CheckpointSource(path, path.resolve().name, None)
    if checkpoint and exists:
        raise CheckpointError(f"{checkpoint} is a file; give the folder that holds {CONFIG}")
    if HUB_ID.fullmatch(checkpoint):
        folder, commit = hub.download(checkpoint, revision, allow_pickle=allow_pickle)
        return CheckpointSource(folder, checkpoint, commit)
    raise CheckpointError(f"{checkpoint!r} is neither an existing folder nor a hub id (owner/name)")


def load_model(source: CheckpointSource | Path, *, allow_pickle: bool = False) -> AlignModel:
    """The model of a checkpoint in evaluation mode: float32, contiguous, without gradients.

    Weights stored as float32 stay memory-mapped, so the file must not be overwritten while the model lives; float16
    and bfloat16 are converted, which is exact.

    Raises:
        CheckpointError: a file is missing or damaged; weights are missing, unexpected, of the wrong shape or type (all
            are listed at once), or not finite.
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
