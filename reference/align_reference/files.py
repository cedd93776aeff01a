"""The files of a checkpoint: which ones are read, and their SHA-256. Imports no torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align_reference.listing import listing, shorten
from align_runtime.errors import CheckpointError
from align_runtime.json_files import MAX_JSON_BYTES, read_object
from align_runtime.regular_files import open_regular

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
MAX_WEIGHT_BYTES = 1 << 34  # of one file; twice the largest model that is supported, in float32
# How the text begins that stands in the place of a large file where a clone has not fetched it.
POINTERS = {
    b"version https://git-lfs": "git lfs pull",
    b"version https://hawser": "git lfs pull",
    b"/annex/": "git annex get",
}


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
    raise CheckpointError(
        f"{where} has no weights; expected one of {', '.join(SAFETENSORS + PICKLES)} (to measure latency without a "
        "checkpoint: align-export --random-weights SEED)"
    )


def find_weights(folder: Path, *, allow_pickle: bool = False) -> WeightFiles:
    """The weight files of the checkpoint in `folder`.

    Raises:
        CheckpointError: as `choose_weights`; or the index is invalid, refers to another folder, or names a missing
            file; or a file is a pointer, see `refuse_pointers`.
    """
    names = file_names(folder)
    chosen = choose_weights(names, str(folder), allow_pickle=allow_pickle)
    refuse_pointers(folder, [chosen])
    pickled = chosen in PICKLES
    if not chosen.endswith(INDEX_SUFFIX):
        return WeightFiles(pickled, None, {chosen: None})
    shards = _read_index(folder / chosen, ".bin" if pickled else ".safetensors")
    missing = sorted(shards.keys() - names)
    if missing:
        raise CheckpointError(
            f"{folder / chosen} names {len(missing)} missing files: {listing(missing)}; download the checkpoint again"
        )
    refuse_pointers(folder, shards)
    return WeightFiles(pickled, chosen, shards)


def file_names(folder: Path) -> frozenset[str]:
    """Names of the regular files directly in `folder`, and of links that lead nowhere: a file is missing, not absent.

    Raises:
        CheckpointError: the folder does not exist or cannot be read.
    """
    try:
        return frozenset(path.name for path in folder.iterdir() if path.is_file() or not path.exists())
    except FileNotFoundError:
        raise CheckpointError(f"the folder {folder} does not exist") from None
    except NotADirectoryError:
        raise CheckpointError(f"{folder} is a file; give the folder that holds {CONFIG}") from None
    except OSError as reason:
        raise CheckpointError(f"the folder {folder} cannot be read: {reason.strerror}") from None


def refuse_pointers(folder: Path, names: Iterable[str]) -> None:
    """Checks that none of the files `names` is the pointer that git-lfs or git-annex leaves in the place of a file.

    Raises:
        CheckpointError: some are (all in one message), or a file cannot be read.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        with open_regular(folder / name, CheckpointError) as file:
            start = file.read(max(map(len, POINTERS)))
        for beginning, remedy in POINTERS.items():
            if start.startswith(beginning):
                found.setdefault(remedy, []).append(name)
    for remedy, pointers in found.items():
        tool = "-".join(remedy.split()[:2])
        raise CheckpointError(
            f"{folder}: {listing(pointers)} {'is a pointer' if len(pointers) == 1 else 'are pointers'} of {tool} "
            f"instead of the content; fetch it with `{remedy}` in the folder, or download the checkpoint again"
        )


def read_config(folder: Path) -> dict[str, Any]:
    """The object in the ``config.json`` of `folder`.

    Raises:
        CheckpointError: there is none, or as `read_json`.
    """
    if CONFIG not in file_names(folder) and not (folder / CONFIG).exists():
        raise CheckpointError(f"{folder} has no {CONFIG}; give the folder of a transformers checkpoint")
    return read_json(folder / CONFIG)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint.

    Raises:
        CheckpointError: as `read_object`, or the file is a pointer, see `refuse_pointers`.
    """
    refuse_pointers(path.parent, [path.name])
    return read_object(path, CheckpointError)


def fingerprint(folder: Path, *, allow_pickle: bool = False, weights: bool = True) -> dict[str, str]:
    """File name → SHA-256 (hexadecimal) of each file that an export reads: configuration, weights, processor files.

    Args:
        allow_pickle: as in `find_weights`.
        weights: whether the export reads weights.

    Raises:
        CheckpointError: as `find_weights`, or a file cannot be read or is a pointer.
    """
    names = [CONFIG, *file_names(folder).intersection(PROCESSOR_FILES)]
    refuse_pointers(folder, names)
    if weights:
        files = find_weights(folder, allow_pickle=allow_pickle)
        names += [*([files.index] if files.index else []), *files.shards]
    return {name: _sha256(folder / name) for name in sorted(names)}


def _sha256(path: Path) -> str:
    limit = MAX_WEIGHT_BYTES if path.suffix in (".safetensors", ".bin") else MAX_JSON_BYTES
    with open_regular(path, CheckpointError) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:  # a sparse file takes no disk, and hours to hash
            raise CheckpointError(f"{path} has {size} bytes; expected at most {limit}")
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_index(path: Path, suffix: str) -> dict[str, frozenset[str] | None]:
    weight_map = read_json(path).get("weight_map")
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
