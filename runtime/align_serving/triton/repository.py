"""A model repository: written beside its place and put there as a whole, and read to see what it holds.

::

    repository/
        align-triton.json           what is served, and every file with its sha256; Triton ignores files here
        align_texts/
            config.pbtxt
            warmup/
            1/                      a version
        align_images/…

Triton reads the folder while it runs (``--model-control-mode=poll``) or when it is told to (``explicit``): it finds the
old or the new content, never a part of it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align_runtime import __version__
from align_runtime.bundle import Bundle, sha256_of
from align_runtime.errors import ConfigurationError
from align_runtime.folder_exchange import check_replaceable, finish_interrupted, is_empty, new_folder, replace
from align_runtime.foreign_text import shortened
from align_runtime.json_files import read_object
from align_serving.triton.options import MODEL_NAME, ServingOptions
from align_serving.triton.served_model import ServedModel

MARKER = "align-triton.json"
SCHEMA_VERSION = 1
MAX_MARKER_BYTES = 16 << 20
CONFIG, WARM_UP = "config.pbtxt", "warmup"
HASHED_BYTES = 4 << 20  # larger files are known by their size: nobody edits weights by hand
VERSION = re.compile(r"[1-9][0-9]{0,8}")
LEFT_BY_SERVERS = ("*/__pycache__/*", "*.compiled")  # by Python, and by TensorRT for RTX beside its engine


@dataclass(frozen=True)
class Repository:
    """What ``align-triton.json`` says.

    Attributes:
        models: name of a model → its ``contract``, and ``versions``: number → what each was made of.
        files: path → size in bytes and sha256.
    """

    models: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, tuple[int, str]]

    @classmethod
    def read(cls, folder: Path) -> Repository:
        """The repository in `folder`.

        Raises:
            ConfigurationError: it is none that align-triton wrote.
        """
        values = read_object(folder / MARKER, ConfigurationError, MAX_MARKER_BYTES)
        try:
            if values["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema version {values['schema_version']!r}")
            models = {str(name): {"contract": str(model["contract"]), "versions": dict(model["versions"])}
                      for name, model in values["models"].items()}  # fmt: skip
            files = {str(name): (int(size), str(sha256)) for name, (size, sha256) in values["files"].items()}
            wrong = [name for name in models if not MODEL_NAME.fullmatch(name)]
            wrong += [
                number for model in models.values() for number in model["versions"] if not VERSION.fullmatch(number)
            ]
            if wrong:
                raise ValueError(f"a model or version {wrong[0]!r}")
        except (KeyError, TypeError, ValueError, AttributeError) as reason:
            raise ConfigurationError(
                f"{folder / MARKER} is not as this version writes it ({shortened(str(reason))}); write to another "
                "folder"
            ) from None
        return cls(models, files)

    def foreign(self, folder: Path) -> str | None:
        """The first file in `folder` that is not as it was written, or that somebody put there; None without one."""
        for path in _files(folder):
            name = path.relative_to(folder).as_posix()
            size, sha256 = self.files.get(name, (-1, ""))
            changed = path.is_symlink() or path.stat().st_size != size
            if changed or (size <= HASHED_BYTES and sha256_of(path) != sha256):
                return name
        return None


def write_repository(
    bundle: Bundle, folder: Path, models: Sequence[ServedModel], options: ServingOptions
) -> Repository:
    """Writes the next version of `models` to `folder`: missing, empty, or a repository in which nobody changed a file.

    Other models stay, and so do the newest versions of these: a server may be loading them, and Triton does not survive
    files that vanish then.

    Raises:
        ConfigurationError: `folder` is another one, a file in it was changed, a version would take other inputs than
            those beside it, or it cannot be written or replaced.
        BundleError: a file of the bundle is missing or was changed.
        BuildError: the new content cannot take the place of the old one; the message says where it is.
    """
    _destination(folder)
    check_replaceable(folder)
    finish_interrupted(folder, MARKER, lambda: _is_whole(folder))
    previous = _destination(folder)
    kept: dict[str, Any] = {}
    if previous is not None:
        _check_contracts(folder, previous, models)
        there = {name: _on_disk(folder / name, model) for name, model in previous.models.items()}
        kept = {name: model for name, model in there.items() if model["versions"]}
    names = [model.config.name for model in models]
    version = 1 + max((int(number) for name in names if name in kept for number in kept[name]["versions"]), default=0)
    for name in set(names) & kept.keys():
        kept[name] = _newest(kept[name], options.keep - 1)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(folder) as staging:
        for name, model in kept.items():
            for part in (*model["versions"], *(() if name in names else (CONFIG, WARM_UP))):
                _keep(folder / name / part, staging / name / part)
        for served in models:
            name = served.config.name
            _write_model(staging / name, served, version)
            old = kept[name]["versions"] if name in kept else {}
            made = {str(version): _description(bundle, served, options)}
            kept[name] = {"contract": served.contract, "versions": old | made}
        written = Repository(kept, _inventory(staging))
        (staging / MARKER).write_text(_as_json(written), encoding="utf-8")
        _destination(folder)  # again: files may have been put there meanwhile
        replace(staging, folder, MARKER)
    return written


def _destination(folder: Path) -> Repository | None:
    """The repository in `folder`; None where there is nothing.

    Raises:
        ConfigurationError: there is something else.
    """
    if folder.is_symlink():
        raise ConfigurationError(f"{folder} is a link to {folder.readlink()}; name the folder itself")
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder} exists and is not a folder; choose another one")
    if is_empty(folder):
        return None
    if not (folder / MARKER).is_file():
        raise ConfigurationError(
            f"{folder} exists and is not a repository that align-triton wrote (it has no {MARKER}); name a folder of "
            "its own: Triton takes --model-repository more than once"
        )
    with suppress(FileNotFoundError):  # the current folder was removed
        if Path.cwd().is_relative_to(folder.resolve()):
            raise ConfigurationError(f"{folder} contains the current folder and cannot be replaced; leave it first")
    found = Repository.read(folder)
    foreign = found.foreign(folder)
    if foreign is not None:
        raise ConfigurationError(
            f"{folder / shortened(foreign)[1:-1]} was changed or added since align-triton wrote the repository, and "
            "would be lost; move it away, or write to another folder"
        )
    return found


def _is_whole(folder: Path) -> bool:
    try:
        return set(Repository.read(folder).files) <= set(_names(folder))
    except ConfigurationError:
        return False


def _check_contracts(folder: Path, previous: Repository, models: Sequence[ServedModel]) -> None:
    for model in models:
        old = previous.models.get(model.config.name)
        if old is not None and old["contract"] != model.contract:
            raise ConfigurationError(
                f"{folder / model.config.name} takes other inputs than this bundle, or gives embeddings of another "
                "size, so clients of one version would fail with the other; choose another --name"
            )


def _on_disk(folder: Path, model: Mapping[str, Any]) -> dict[str, Any]:
    """`model` with the versions that are there: to remove a folder is to go back to the version before."""
    found = {number: made for number, made in model["versions"].items() if (folder / number).is_dir()}
    return {"contract": model["contract"], "versions": found}


def _newest(model: Mapping[str, Any], count: int) -> dict[str, Any]:
    numbers = sorted(model["versions"], key=int)
    stay = numbers[max(len(numbers) - count, 0) :]
    return {"contract": model["contract"], "versions": {number: model["versions"][number] for number in stay}}


def _keep(source: Path, target: Path) -> None:
    """Links the file `source`, or those in the folder; copies them where they cannot be linked."""
    for path in [source] if source.is_file() else _files(source):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, place)
        except OSError:
            shutil.copyfile(path, place)


def _write_model(folder: Path, model: ServedModel, version: int) -> None:
    place = folder / str(version)
    place.mkdir(parents=True)
    model.write(place)
    files = {name: content for warm_up in model.config.warm_ups for name, content in warm_up.files.items()}
    (folder / WARM_UP).mkdir()
    for name, content in files.items():
        (folder / WARM_UP / name).write_bytes(content)
    (folder / CONFIG).write_text(model.config.text(), encoding="utf-8")


def _description(bundle: Bundle, model: ServedModel, options: ServingOptions) -> dict[str, Any]:
    return {
        "checkpoint": bundle.manifest.provenance.name,
        "manifest_sha256": bundle.manifest_sha256,
        "backend": options.backend,
        "tower": model.graph.tower,
        "precision": model.graph.exact_variant,
        "device": options.device,
    }


def _inventory(folder: Path) -> dict[str, tuple[int, str]]:
    return {path.relative_to(folder).as_posix(): (path.stat().st_size, sha256_of(path)) for path in _files(folder)}


def _names(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    """Files and links in `folder`, sorted, except the marker and what servers leave."""
    for path in sorted(folder.rglob("*")):
        if (
            not any(path.match(pattern) for pattern in LEFT_BY_SERVERS)
            and path.name != MARKER
            and (path.is_symlink() or not path.is_dir())
        ):
            yield path


def _as_json(repository: Repository) -> str:
    values = {
        "schema_version": SCHEMA_VERSION,
        "written_by": f"align-triton {__version__}",
        "models": repository.models,
        "files": dict(sorted(repository.files.items())),
    }
    return f"{json.dumps(values, indent=1)}\n"
