"""The Hugging Face hub: what a name is, the layout of its cache, and its errors in words. The client is optional."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from align_runtime.errors import AlignError
from align_runtime.foreign_text import printable

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
MAX_REASON = 120  # characters of the client's own words


def is_in_cache(file: Path, folder: Path) -> bool:
    """Whether `file` of `folder`, a snapshot in a cache of the hub, is a link into the blobs of the same repository.

    A cache keeps ``models--owner--name/blobs/HASH`` and ``models--owner--name/snapshots/COMMIT/file``, the links. All
    of it is the repository's own content.

    Args:
        folder: resolved.
    """
    snapshots = folder.parent
    return snapshots.name == "snapshots" and file.resolve().parent == snapshots.parent / "blobs"


@contextmanager
def progress_bars(shown: bool) -> Iterator[None]:
    """The bars of the hub's client, on a terminal and where they are `shown`; elsewhere they fill logs."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if (shown and sys.stderr is not None and sys.stderr.isatty()) or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def explained(repo_id: str, revision: str | None, error: type[AlignError]) -> Iterator[None]:
    """Turns every failure of the hub's client into an `error` that says what to do."""
    try:
        yield
    except AlignError:
        raise
    except Exception as reason:  # also the errors of the HTTP library that the client uses
        raise error(_explanation(reason, repo_id, revision)) from None


def _explanation(reason: BaseException, repo_id: str, revision: str | None) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub, text = constants.ENDPOINT, printable(" ".join(str(reason).split()), MAX_REASON)
    at = f" at revision {revision!r}" if revision else ""
    match reason:
        case HFValidationError():
            return f"{repo_id!r} is neither an existing folder nor a hub id: {text}"
        case GatedRepoError():  # a subclass of RepositoryNotFoundError
            return (
                f"{repo_id} is gated: accept its conditions on {hub}/{repo_id}, then log in with `hf auth login` or "
                "set HF_TOKEN"
            )
        case RepositoryNotFoundError():
            return (
                f"{repo_id} not found, neither as a local folder nor on the hub {hub}: check the spelling; if it is "
                "private, log in with `hf auth login` or set HF_TOKEN"
            )
        case RevisionNotFoundError():
            return f"{repo_id} has no revision {revision!r} on {hub}: give a branch, a tag or a full commit hash"
        case HfHubHTTPError():
            status = reason.response.status_code
            advice = (
                "log in with `hf auth login` or set a valid HF_TOKEN" if status in (401, 403) else "try again later"
            )
            return f"the hub {hub} refused {repo_id}{at} (HTTP status {status}): check HF_ENDPOINT, or {advice}"
        case LocalEntryNotFoundError() | OfflineModeIsEnabled() if constants.HF_HUB_OFFLINE:
            return (
                f"{repo_id}{at} is not in the cache {constants.HF_HUB_CACHE} and HF_HUB_OFFLINE is set: unset it to "
                "download, or give a local folder"
            )
        case LocalEntryNotFoundError() if reason.__cause__ is not None:  # why the client fell back to the cache
            return _explanation(reason.__cause__, repo_id, revision)
        case OSError():
            return f"{repo_id}{at} cannot be downloaded from {hub}: {text}"
        case _:
            return (
                f"the hub {hub} cannot be reached for {repo_id}{at}, or is not a Hugging Face hub "
                f"({type(reason).__name__}: {text}): check the network and HF_ENDPOINT, set "
                "HF_HUB_OFFLINE=1 to use a copy in the cache, or give a local folder"
            )
