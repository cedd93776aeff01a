"""Reads weight files, safetensors or PyTorch pickles, single or sharded, as memory-mapped tensors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from align_reference.files import WeightFiles
from align_reference.listing import listing, shorten
from align_runtime.errors import CheckpointError
from align_runtime.regular_files import open_regular

MAX_HEADER_BYTES = 16 * 1024 * 1024  # ALIGN's header takes 0.13 MB (1,100 tensors); the library would accept 100 MB


def read_weights(folder: Path, files: WeightFiles) -> dict[str, Tensor]:
    """All tensors of `files` by key, on the CPU, with the stored dtypes. The file is paged in when a tensor is read.

    Raises:
        CheckpointError: a file cannot be read or holds anything but tensors, or the index does not match its files.
    """
    weights: dict[str, Tensor] = {}
    problems: list[str] = []
    for name, listed in files.shards.items():
        content = read_pickle(folder / name) if files.pickled else read_safetensors(folder / name)
        if listed is not None:
            problems += [f"{key} is not in {name}" for key in sorted(listed - content.keys())]
            problems += [f"{key} in {name} is not in the index" for key in sorted(content.keys() - listed)]
        weights.update(content)
    if problems:
        raise CheckpointError(
            f"{folder}: {files.index} does not match its files: {listing(problems)}; download the checkpoint again"
        )
    return weights


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file, memory-mapped.

    Raises:
        CheckpointError: the file is truncated, damaged or not a safetensors file, or its header is too large.
    """
    with open_regular(path, CheckpointError) as file:
        length = int.from_bytes(file.read(8), "little")
    try:
        if length > MAX_HEADER_BYTES:
            raise CheckpointError(
                f"{path} is damaged or not a safetensors file: its header would have {length} bytes; at most "
                f"{MAX_HEADER_BYTES} are accepted"
            )
        return dict(load_file(path))
    except OSError as reason:
        raise CheckpointError(f"{path} cannot be read: {shorten(reason.strerror or reason)}") from None
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as reason:  # the latter: dtypes
        raise CheckpointError(
            f"{path} is truncated, damaged or not a safetensors file ({shorten(reason)}); download it again"
        ) from None


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of one file written by ``torch.save``, memory-mapped, read with PyTorch's restricted unpickler.

    Raises:
        CheckpointError: the file is damaged, older than PyTorch 1.6, or holds anything but named dense tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as reason:
        raise CheckpointError(f"{path} cannot be read: {shorten(reason.strerror or reason)}") from None
    except Exception as reason:  # a damaged pickle can raise nearly any exception
        raise CheckpointError(
            f"{path} cannot be read as a state dict ({_reason(reason)}); it is damaged, older than PyTorch 1.6, or "
            "holds more than tensors: save the state dict again, preferably as model.safetensors"
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a state dict")
    others = [f"{key!r} ({type(value).__name__})" for key, value in content.items() if not _is_weight(key, value)]
    if others:
        raise CheckpointError(
            f"{path} holds more than named dense tensors: {listing(others)}; save the state dict alone"
        )
    return {key: tensor.detach() for key, tensor in content.items()}


def _is_weight(key: Any, value: Any) -> bool:
    if not isinstance(key, str) or not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_meta:
        return False
    # A tensor larger than its storage repeats it (stride 0); a copy of it could take any amount of memory.
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _reason(error: Exception) -> str:
    refused = re.search(r"Unsupported (?:global|class|operand)[^\n.]*?((?:\w+\.)+\w+)", str(error))
    if refused:
        return f"it contains {refused[1]}"
    return shorten(error)
