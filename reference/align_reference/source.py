"""Where a checkpoint is: a local folder, or a hub id whose files are downloaded. Nothing here needs torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from align_reference import hub
from align_reference.files import CONFIG
from align_runtime.errors import CheckpointError, ConfigurationError

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


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


def resolve(
    checkpoint: str, revision: str | None = None, *, allow_pickle: bool = False, quiet: bool = False
) -> CheckpointSource:
    """Finds the folder of a checkpoint, downloading it where `checkpoint` is a hub id (``owner/name``).

    An existing folder always goes first. Server, cache, token and offline mode are huggingface_hub's own settings
    (``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN``, ``HF_HUB_OFFLINE``). `revision` is a branch, tag or commit;
    `allow_pickle` also admits a hub repository without safetensors; `quiet` hides the progress of the download.

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
        folder, commit = hub.download(checkpoint, revision, allow_pickle=allow_pickle, quiet=quiet)
        return CheckpointSource(folder, checkpoint, commit)
    raise CheckpointError(f"{checkpoint!r} is neither an existing folder nor a hub id (owner/name)")
