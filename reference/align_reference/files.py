"""The files of a checkpoint: which ones are read, and their SHA-256. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from align_reference.listing import listing, shorten
from align_runtime.errors import CheckpointError
from align_runtime.json_files import read_object

CONFIG = "config.json"
PROCESSOR_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
INDEX_SUFFIX = ".index.json"
SAFETENSORS = ("model.safetensors", "model.safetensors" + INDEX_SUFFIX)  # the first that exists is read
PICKLES = ("pytorch_model.bin", "pytorch_model.bin" + INDEX_SUFFIX)
MAX_SHARDS = 1000


@dataclass(frozen=True)
class WeightFiles:
    """The files that hold the weights of one checkpoint.

    Attributes:
        pickled: whether they are pickles rather than safetensors.
        index: name of the index file, None where a single file holds all.
        shards: name of each weight file → the keys that the index places in it (None without an index).
    """

    pickled: bool
    index: str | None
    shards: Mapping[str, frozenset[str] | None]


def choose_weights(names: Collection[str], where: str, *, allow_pickle: bool) -> str:
    """The one of the files `names` to read the weights from, or their index.

    safetensors take precedence over pickles, and a single file over shards.

    Raises:
        CheckpointError: there is none, or only a pickle and `allow_pickle` is false. `where` begins the message.
    """
    for name in SAFETENSORS:
        if name in names:
            return name
    for name in PICKLES:
        if name in names:
            if allow_pickle:
                return name
            raise CheckpointError(
                f"{where} holds its weights only as {name}, a Python pickle, which can contain code; convert it to "
                "model.safetensors, or give --allow-pickle if you trust its source (it is then read with PyTorch's "
                "restricted unpickler, weights_only)"
            )
    raise CheckpointError(f"{where} has no weights; expected one of {', '.join(SAFETENSORS + PICKLES)}")


def find_weights(folder: Path, *, allow_pickle: bool = False) -> WeightFiles:
    """The weight files of the checkpoint in `folder`.

    Raises:
        CheckpointError: as `choose_weights`; or the index is invalid, refers to another folder, or names a missing
            file.
    """
    chosen = choose_weights(file_names(folder), str(folder), allow_pickle=allow_pickle)
    pickled = chosen in PICKLES
    if not chosen.endswith(INDEX_SUFFIX):
        return WeightFiles(pickled, None, {chosen: None})
    shards = _read_index(folder / chosen, ".bin" if pickled else ".safetensors")
    missing = sorted(name for name in shards if not (folder / name).is_file())
    if missing:
        raise CheckpointError(
            f"{folder / chosen} names {len(missing)} missing files: {listing(missing)}; download the checkpoint again"
        )
    return WeightFiles(pickled, chosen, shards)


def file_names(folder: Path) -> frozenset[str]:
    """Names of the regular files directly in `folder`.

    Raises:
        CheckpointError: the folder does not exist or cannot be read.
    """
    try:
        return frozenset(path.name for path in folder.iterdir() if path.is_file())
    except FileNotFoundError:
        raise CheckpointError(f"the folder {folder} does not exist") from None
    except NotADirectoryError:
        raise CheckpointError(f"{folder} is a file; give the folder that holds {CONFIG}") from None
    except OSError as reason:
        raise CheckpointError(f"the folder {folder} cannot be read: {reason.strerror}") from None


def fingerprint(folder: Path, *, allow_pickle: bool = False) -> dict[str, str]:
    """File name → SHA-256 (hexadecimal) of each file that an export reads: configuration, weights, processor files.

    Raises:
        CheckpointError: as `find_weights`, or a file cannot be read.
    """
    files = find_weights(folder, allow_pickle=allow_pickle)
    processor = file_names(folder).intersection(PROCESSOR_FILES)
    names = [CONFIG, *([files.index] if files.index else []), *files.shards, *processor]
    return {name: _sha256(folder / name) for name in sorted(names)}


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as reason:
        raise CheckpointError(f"{path} cannot be read: {reason.strerror}") from None


def _read_index(path: Path, suffix: str) -> dict[str, frozenset[str] | None]:
    weight_map = read_object(path, CheckpointError).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path} has no weight_map (weight → file name); download it again")
    keys: dict[str, set[str]] = {}
    for key, name in weight_map.items():
        # A plain file name: a forged index must not lead to files in other folders.
        if not isinstance(name, str) or not _is_plain(name) or not name.endswith(suffix):
            raise CheckpointError(
                f"{path} places {shorten(key)} in {shorten(repr(name))}; expected the name of a {suffix} file in the "
                "same folder"
            )
        keys.setdefault(name, set()).add(key)
    if len(keys) > MAX_SHARDS:
        raise CheckpointError(f"{path} names {len(keys)} files; at most {MAX_SHARDS} are supported")
    return {name: frozenset(keys[name]) for name in sorted(keys)}


def _is_plain(name: str) -> bool:
    return name.isprintable() and not any(mark in name for mark in "/\\:")
