"""Where a bundle is: a local folder, or a hub id whose files are downloaded into the cache of the hub's client."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path

from align_runtime.bundle import Bundle
from align_runtime.errors import BackendUnavailableError, BundleError, ConfigurationError
from align_runtime.folder_exchange import interrupted
from align_runtime.foreign_text import shortened
from align_runtime.hub import HUB_ID, explained, is_in_cache, progress_bars
from align_runtime.manifest import MANIFEST_NAME
from align_runtime.user_path import user_path


@dataclass(frozen=True)
class FoundBundle:
    """The folder of a bundle.

    Attributes:
        downloaded: whether it is in the cache of the hub: the hashes of the files that are used are then checked.
    """

    folder: Path
    downloaded: bool


def find_bundle(bundle: str | os.PathLike[str], revision: str | None = None, *, quiet: bool = True) -> FoundBundle:
    """The folder of `bundle`; downloads it if it is a hub id (``owner/name``) and no such path exists.

    Server, cache, token and offline mode are the settings of huggingface_hub (``HF_ENDPOINT``, ``HF_HOME``,
    ``HF_TOKEN``, ``HF_HUB_OFFLINE``).

    Args:
        revision: branch, tag or commit of a hub id.
        quiet: whether to hide the progress bars of the download.

    Raises:
        BundleError: the download failed, or what is on the hub is not a bundle.
        ConfigurationError: `revision` was given with a local folder.
        BackendUnavailableError: huggingface_hub is not installed.
    """
    path = user_path(bundle)
    local = os.path.lexists(path) or interrupted(path) is not None
    if isinstance(bundle, str) and HUB_ID.fullmatch(bundle) and not local:
        return FoundBundle(_download(bundle, revision, quiet), downloaded=True)
    if revision is not None:
        raise ConfigurationError(
            f"revision {shortened(revision)} was given with the path {path}; only a hub id (owner/name) has one"
        )
    return FoundBundle(path, downloaded=False)


def _download(repo_id: str, revision: str | None, quiet: bool) -> Path:
    try:
        from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
        from huggingface_hub.errors import OfflineModeIsEnabled
    except ImportError:
        raise BackendUnavailableError(
            f"{repo_id} does not exist as a folder; to download it from the hub, install its client with: "
            "pip install 'align-onnx[hub]'"
        ) from None
    with explained(repo_id, revision, BundleError), progress_bars(shown=not quiet):
        try:
            info = HfApi().model_info(repo_id, revision=revision)
        except OfflineModeIsEnabled:
            manifest = Path(hf_hub_download(repo_id, MANIFEST_NAME, revision=revision, local_files_only=True))
            _check_present(repo_id, manifest)
            return manifest.parent
        there = {file.rfilename for file in info.siblings or []}
        _check_listed(f"{repo_id} on {constants.ENDPOINT}", there, [MANIFEST_NAME])
        # By the name of the revision, so that the cache knows it offline, too. If the hub fails here, its client falls
        # back to an older commit in the cache.
        manifest = Path(hf_hub_download(repo_id, MANIFEST_NAME, revision=revision))
        if manifest.parent.name != info.sha:
            raise BundleError(
                f"{repo_id} is at commit {info.sha} on the hub, but {manifest.parent.name} was downloaded; it changed "
                "meanwhile, or the connection failed: try again"
            )
        wanted = _listed_files(manifest)
        _check_listed(f"{repo_id} on {constants.ENDPOINT}", there, wanted)
        new = [name for name in wanted if not (manifest.parent / name).exists()]
        if new:
            patterns = [glob.escape(name) for name in new]
            snapshot_download(repo_id, revision=info.sha, allow_patterns=patterns)
        _check_download(repo_id, manifest.parent, new)
    return manifest.parent


def _listed_files(manifest: Path) -> list[str]:
    return sorted(Bundle.open(manifest.parent, complete=False).manifest.files)


def _check_listed(where: str, there: set[str], wanted: list[str]) -> None:
    missing = [name for name in wanted if name not in there]
    if missing == [MANIFEST_NAME]:
        raise BundleError(
            f"{where} is not a bundle: it has no {MANIFEST_NAME}; if it is a checkpoint, export it with align-export"
        )
    if missing:
        raise BundleError(f"{where} lacks {shortened(missing[0])}, which its {MANIFEST_NAME} lists; upload it whole")


def _check_present(repo_id: str, manifest: Path) -> None:
    for name in _listed_files(manifest):
        if not (manifest.parent / name).exists():
            raise BundleError(
                f"{repo_id} is not complete in the cache ({manifest.parent} lacks {name}) and HF_HUB_OFFLINE is set: "
                "unset it to download the rest"
            )


def _check_download(repo_id: str, folder: Path, new: list[str]) -> None:
    """Compares what was downloaded with the manifest; what differs does not stay in the cache, to be taken as it is."""
    bundle = Bundle.open(folder, complete=False)
    for name in new:
        try:
            bundle.check_hash(name)
        except BundleError:
            file = folder / name
            if is_in_cache(file, folder.resolve()):
                file.resolve().unlink()
            file.unlink()
            raise BundleError(
                f"{repo_id}: {name} is not the file that {MANIFEST_NAME} describes, and was removed from the cache; "
                "try again, or tell the owner if it happens again"
            ) from None
