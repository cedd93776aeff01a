"""Download from a Hugging Face hub: the files of one checkpoint and no others, every failure on one line."""

from __future__ import annotations

import glob
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from align_reference.files import CONFIG, INDEX_SUFFIX, PROCESSOR_FILES, choose_weights, file_names
from align_reference.listing import shorten
from align_runtime.errors import AlignError, CheckpointError


def download(
    repo_id: str, revision: str | None, *, allow_pickle: bool = False, quiet: bool = False
) -> tuple[Path, str]:
    """Folder and commit of `repo_id` in the local cache, after fetching what the cache lacks.

    The hub's client shows its progress on stderr unless `quiet`.

    Raises:
        CheckpointError: the hub cannot be reached or refuses, or the repository is not a checkpoint.
    """
    with _explained(repo_id, revision), _progress_bars(shown=not quiet):
        try:
            info = HfApi().model_info(repo_id, revision=revision)
        except OfflineModeIsEnabled:
            return _from_cache(repo_id, revision, allow_pickle=allow_pickle)
        names = [file.rfilename for file in info.siblings or []]
        wanted = wanted_files(names, f"{repo_id} on {constants.ENDPOINT}", allow_pickle=allow_pickle)
        patterns = [glob.escape(name) for name in wanted]
        folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns))
    # The hub's client falls back to what it finds in the cache when the hub fails between the two calls.
    if folder.name != info.sha:
        raise CheckpointError(
            f"{repo_id} is at commit {info.sha} on the hub, but {folder.name} was fetched; it changed meanwhile or the "
            "connection failed: try again"
        )
    return folder, folder.name


def wanted_files(names: Collection[str], where: str, *, allow_pickle: bool) -> list[str]:
    """Those of a repository's files that the loader or the runtime reads. Sub-folders are not looked into.

    Raises:
        CheckpointError: ``config.json`` or the weights are not among them. `where` begins the message.
    """
    if CONFIG not in names:
        raise CheckpointError(f"{where} holds no {CONFIG}: it is not a transformers checkpoint")
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


@contextmanager
def _progress_bars(shown: bool) -> Iterator[None]:
    if shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def _explained(repo_id: str, revision: str | None) -> Iterator[None]:
    """Turns every failure of the hub's client into a `CheckpointError` that says what to do."""
    try:
        yield
    except AlignError:
        raise
    except Exception as reason:  # also transport errors of whichever HTTP library the client uses
        raise CheckpointError(_explanation(reason, repo_id, revision)) from None


def _explanation(reason: BaseException, repo_id: str, revision: str | None) -> str:
    hub = constants.ENDPOINT
    at = f" at revision {revision!r}" if revision else ""
    match reason:
        case HFValidationError():
            return f"{repo_id!r} is neither an existing folder nor a hub id: {shorten(reason)}"
        case GatedRepoError():  # before RepositoryNotFoundError, which it is one of
            return (
                f"{repo_id} is gated: accept its conditions on {hub}/{repo_id}, then log in with `hf auth login` or "
                "set HF_TOKEN"
            )
        case RepositoryNotFoundError():
            return (
                f"there is no folder {repo_id} here, and the hub {hub} shows no such model: check the spelling; if it "
                "is private, log in with `hf auth login` or set HF_TOKEN"
            )
        case RevisionNotFoundError():
            return f"{repo_id} has no revision {revision!r} on {hub}: give a branch, a tag or a full commit of it"
        case HfHubHTTPError():
            status = reason.response.status_code
            advice = (
                "log in with `hf auth login` or set a valid HF_TOKEN" if status in (401, 403) else "try again later"
            )
            return f"the hub {hub} refuses {repo_id}{at} (HTTP status {status}): check HF_ENDPOINT, or {advice}"
        case LocalEntryNotFoundError() | OfflineModeIsEnabled() if constants.HF_HUB_OFFLINE:
            return (
                f"{repo_id}{at} is not in the cache {constants.HF_HUB_CACHE} and HF_HUB_OFFLINE is set: unset it to "
                "download, or give a local folder"
            )
        case LocalEntryNotFoundError() if reason.__cause__ is not None:  # why it looked into the cache in the end
            return _explanation(reason.__cause__, repo_id, revision)
        case OSError():
            return f"{repo_id}{at} cannot be downloaded from {hub}: {shorten(reason)}"
        case _:
            return (
                f"the hub {hub} cannot be reached for {repo_id}{at}, or is no Hugging Face hub "
                f"({type(reason).__name__}: {shorten(reason)}): check the network and HF_ENDPOINT, set "
                "HF_HUB_OFFLINE=1 to use a copy in the cache, or give a local folder"
            )
