"""Whether a bundle is still what an export would write: same checkpoint, options and tools, and undamaged."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import align_calibration
import align_exporter
import align_reference
import align_runtime
from align_exporter.export_options import ExportOptions
from align_reference.files import fingerprint
from align_reference.source import CheckpointSource
from align_runtime.bundle import Bundle
from align_runtime.errors import BundleError
from align_runtime.foreign_text import printable
from align_runtime.manifest import Provenance

SOURCES = (align_calibration, align_exporter, align_reference, align_runtime)
TOOLS = ("align-onnx", "torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy", "pillow", "tokenizers")


def provenance(source: CheckpointSource, options: ExportOptions) -> Provenance:
    """Everything that decides what the bundle of `source` contains: reads and hashes the checkpoint's files.

    Raises:
        CheckpointError: a file is missing or cannot be read.
    """
    return Provenance(
        name=printable(source.name),  # a name on Linux is bytes, a manifest is UTF-8
        revision=source.revision,
        files=fingerprint(source.folder, allow_pickle=options.allow_pickle),
        options=json.loads(json.dumps(options.record)),  # as it will be read back
        tools={"python": platform.python_version(), "source": source_hash()}
        | {tool: tool_version(tool) for tool in TOOLS},
    )


@cache
def source_hash() -> str:
    """The first 12 hex digits of the sha256 of all modules that an export runs: a changed pass has the same version."""
    digest = hashlib.sha256()
    for package in SOURCES:
        root = Path(package.__path__[0])
        for file in sorted(root.rglob("*.py")):
            digest.update(f"{package.__name__}/{file.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]


def tool_version(name: str) -> str:
    """Version of an installed package; of ``onnxruntime`` also where it is the one with CUDA, under its other name.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    try:
        return version(name)
    except PackageNotFoundError:
        if name != "onnxruntime":
            raise
        return version("onnxruntime-gpu")


def staleness(output: Path, wanted: Provenance) -> str | None:
    """Why the bundle at `output` has to be built again; None when it is whole and was built from exactly `wanted`."""
    if not output.exists():
        return "no bundle yet"
    try:
        bundle = Bundle.open(output)
        for name in bundle.manifest.files:
            bundle.check_hash(name)
    except BundleError as error:
        return str(error)
    found = bundle.manifest.provenance
    if (found.name, found.revision) != (wanted.name, wanted.revision):
        return f"it was built from {found.name}{f' at {found.revision}' if found.revision else ''}"
    for kind in ("files", "options", "tools"):
        changed = _differences(getattr(found, kind), getattr(wanted, kind))
        if changed:
            return f"changed {kind}: {', '.join(changed)}"
    return None


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
