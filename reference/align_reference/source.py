"""Where a checkpoint is: a local folder, or a hub id whose files are downloaded. Imports no torch."""

from __future__ import annotations

import glob
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import OfflineModeIsEnabled

from align_reference.files import (
    CONFIG,
    INDEX_SUFFIX,
    PICKLES,
    PROCESSOR_FILES,
    SAFETENSORS,
    choose_weights,
    file_names,
)
from align_reference.listing import shorten
from align_runtime.errors import CheckpointError, ConfigurationError
from align_runtime.foreign_text import printable
from align_runtime.hub import HUB_ID, explained, progress_bars
from align_runtime.user_path import user_path


@dataclass(frozen=True)
class CheckpointSource:
    """A checkpoint in a local folder or in the local cache of the hub.

    Attributes:
        folder: the local folder that holds its files.
        name: the name of the folder, or the hub id.
        revision: the commit of a hub id; None for a local folder.
    """

    folder: Path
    name: str
    revision: str | None


def resolve(
    checkpoint: str, revision: str | None = None, *, allow_pickle: bool = False, quiet: bool = False
) -> CheckpointSource:
    """Finds the folder of a checkpoint; downloads it if `checkpoint` is a hub id (``owner/name``).

    An existing folder takes precedence over a hub id. Server, cache, token and offline mode are the settings of
    huggingface_hub (``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN``, ``HF_HUB_OFFLINE``).

    Args:
        checkpoint: path of a folder, or a hub id.
        revision: branch, tag or commit of a hub id.
        allow_pickle: whether to download a hub repository whose weights are only there as a Python pickle.
        quiet: whether to hide the progress bars of the download.

    Raises:
        CheckpointError: not found, or the download failed.
        ConfigurationError: `revision` was given with a local folder.
    """
    path = user_path(checkpoint)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as reason:
        raise CheckpointError(f"{shorten(checkpoint)!r} cannot be read: {reason.strerror}") from None
    if checkpoint and is_folder:
        if revision is not None:
            raise ConfigurationError(
                f"revision {shorten(revision)!r} was given with the local folder {checkpoint}; only a hub id has one"
            )
        return _local(path)
    if checkpoint and exists:
        raise CheckpointError(f"{checkpoint} is a file; give the folder that holds {CONFIG}")
    if HUB_ID.fullmatch(checkpoint):
        folder, commit = download(checkpoint, revision, allow_pickle=allow_pickle, quiet=quiet)
        return CheckpointSource(folder, checkpoint, commit)
    raise CheckpointError(f"{shorten(checkpoint)!r} is neither an existing folder nor a hub id (owner/name)")


def resolve_configuration(checkpoint: str) -> CheckpointSource:
    """The folder of a ``config.json`` that has no weights; `checkpoint` is its path, or that of the file.

    Raises:
        CheckpointError: there is no such file.
        ConfigurationError: the folder has weights.
    """
    path = Path(checkpoint).expanduser() if checkpoint.startswith("~/") else Path(checkpoint)
    folder = path.parent if path.name == CONFIG and not path.is_dir() else path
    try:
        names = file_names(folder) if folder.exists() else frozenset()
    except OSError as reason:
        raise CheckpointError(f"{shorten(checkpoint)!r} cannot be read: {reason.strerror}") from None
    weights = sorted(names.intersection(SAFETENSORS + PICKLES))
    if weights:
        raise ConfigurationError(
            f"{folder} has weights ({', '.join(weights)}), which --random-weights would not read; leave it out, or "
            f"copy {CONFIG} into a folder of its own"
        )
    if CONFIG not in names:
        raise CheckpointError(f"{shorten(checkpoint)!r} is neither a {CONFIG} nor a local folder with one")
    return _local(folder)


def _local(folder: Path) -> CheckpointSource:
    # The name is written to files in UTF-8, and a name of a folder need not be that.
    return CheckpointSource(folder, printable(folder.resolve().name), None)


def download(
    repo_id: str, revision: str | None, *, allow_pickle: bool = False, quiet: bool = False
) -> tuple[Path, str]:
    """Downloads the files of `repo_id` that are not in the local cache; returns their folder and commit.

    Only the files of one checkpoint are downloaded. The hub client shows its progress on stderr unless `quiet`.

    Raises:
        CheckpointError: the hub cannot be reached or refuses the request, or the repository is not a checkpoint.
    """
    with explained(repo_id, revision, CheckpointError), progress_bars(shown=not quiet):
        try:
            info = HfApi().model_info(repo_id, revision=revision)
        except OfflineModeIsEnabled:
            return _from_cache(repo_id, revision, allow_pickle=allow_pickle)
        names = [file.rfilename for file in info.siblings or []]
        wanted = wanted_files(names, f"{repo_id} on {constants.ENDPOINT}", allow_pickle=allow_pickle)
        patterns = [glob.escape(name) for name in wanted]
        folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns))
    # If the hub fails between the two calls, its client falls back to an older commit in the cache.
    if folder.name != info.sha:
        raise CheckpointError(
            f"{repo_id} is at commit {info.sha} on the hub, but {folder.name} was downloaded; it changed meanwhile, or "
            "the connection failed: try again"
        )
    return folder, folder.name


def wanted_files(names: Collection[str], where: str, *, allow_pickle: bool) -> list[str]:
    """The files among `names` (those of a repository) that the loader or the runtime reads; none in sub-folders.

    Raises:
        CheckpointError: ``config.json`` or the weights are missing. `where` begins the message.
    """
    if CONFIG not in names:
        raise CheckpointError(f"{where} has no {CONFIG}: it is not a transformers checkpoint")
    weights = choose_weights(names, where, allow_pickle=allow_pickle)
    wanted = {CONFIG, weights, *(name for name in PROCESSOR_FILES if name in names)}
    if weights.endswith(INDEX_SUFFIX):
        stem, suffix = weights.removesuffix(INDEX_SUFFIX).rsplit(".", 1)
        wanted |= {name for name in names if name.startswith(f"{stem}-") and name.endswith(f".{suffix}")}
    return sorted(wanted)


def _from_cache(repo_id: str, revision: str | None, *, allow_pickle: bool) -> tuple[Path, str]:
    folder = Path(snapshot_download(repo_id, revision=revision, local_files_only=True, allow_patterns=[CONFIG]))
    wanted_files(file_names(folder), f"{repo_id} in the cache ({folder})", allow_pickle=allow_pickle)
    return folder, folder.name
