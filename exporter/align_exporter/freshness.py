"""Whether a bundle is still what an export would write: same checkpoint, options and tools, and undamaged."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import align_bench
import align_calibration
import align_exporter
import align_reference
import align_runtime
from align_calibration.package_hash import package_hash
from align_exporter.export_options import ExportOptions
from align_reference.files import fingerprint
from align_reference.source import CheckpointSource
from align_runtime.bundle import Bundle
from align_runtime.errors import BundleError
from align_runtime.foreign_text import printable
from align_runtime.manifest import Provenance

SOURCES = (align_bench, align_calibration, align_exporter, align_reference, align_runtime)  # bench: the speed of INT8
TOOLS = (
    "align-onnx", "torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "protobuf", "ml-dtypes", "safetensors",
    "numpy", "pillow", "tokenizers", "jinja2",
)  # fmt: skip
MAX_REASON = 400  # characters


def provenance(source: CheckpointSource, options: ExportOptions) -> Provenance:
    """Everything that decides what the bundle of `source` contains: reads and hashes the checkpoint's files.

    Raises:
        CheckpointError: a file is missing or cannot be read.
    """
    return Provenance(
        name=printable(source.name),  # a name on Linux is bytes, a manifest is UTF-8
        revision=source.revision,
        files=fingerprint(source.folder, allow_pickle=options.allow_pickle, weights=options.random_weights is None),
        random_weights=options.random_weights,
        options=json.loads(json.dumps(options.record)),  # as it will be read back
        tools={"python": platform.python_version(), "source": source_hash()}
        | {tool: tool_version(tool) for tool in TOOLS},
    )


@cache
def source_hash() -> str:
    """The hash of all our packages that an export runs."""
    return package_hash(SOURCES)


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
    """Why the bundle at `output` has to be built again; None when it is whole and was built from exactly `wanted`.

    That is what its own manifest says: someone who changed a bundle and its manifest together is not noticed.
    """
    reason = _staleness(output, wanted)
    return None if reason is None else printable(reason, MAX_REASON)  # parts of it come from the bundle


def _staleness(output: Path, wanted: Provenance) -> str | None:
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
    if found.random_weights != wanted.random_weights:
        seed = found.random_weights
        return f"it was built with {'weights of a checkpoint' if seed is None else f'random weights of seed {seed}'}"
    for kind in ("files", "options", "tools"):
        changed = _differences(getattr(found, kind), getattr(wanted, kind))
        if changed:
            return f"changed {kind}: {', '.join(changed)}"
    return None


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
