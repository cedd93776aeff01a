"""Importing ONNX Runtime, in one place: without its telemetry, and in a version that computes what is asked for.

docs/troubleshooting.md has the table of what each version did with our graphs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from align_runtime.errors import BackendUnavailableError
from align_runtime.graph_entry import GPU_TARGET
from align_runtime.versions import version

SWITCH = "ORT_DISABLE_TELEMETRY"
# The first that loads every opset that align-export writes, and reads weights from memory (`mmap=False`) and from the
# links in a cache of the Hugging Face hub, which 1.24.1 refuses.
LOWEST = "1.24.2"
# Graphs by variant and target that need a newer one on a CPU. Before 1.30 its QuantizeLinear rounds FP16 values toward
# zero instead of to the nearest: such a graph is right, and its embeddings are not.
NEEDED: Mapping[tuple[str, str], str] = {("int8", GPU_TARGET): "1.30"}
INSTALL = "pip install -U 'align-onnx[cpu]'"


def import_onnxruntime(install: str = INSTALL) -> Any:
    """The package `onnxruntime`.

    From 1.29 on it starts a thread at import that sends usage data. That thread does not survive a fork, and a child
    that waits for it, or finds one of its locks taken, hangs. So it is switched off, unless `SWITCH` is set to
    something else or the package was imported before.

    Args:
        install: the command that installs the package, for an error.

    Raises:
        BackendUnavailableError: it is not installed, or older than `LOWEST`.
    """
    os.environ.setdefault(SWITCH, "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendUnavailableError(f"onnxruntime cannot be imported ({error}); install it with: {install}") from None
    if is_older(onnxruntime, LOWEST):
        raise BackendUnavailableError(
            f"onnxruntime {onnxruntime.__version__} is too old, {LOWEST} or newer is needed; upgrade it: {install}"
        )
    return onnxruntime


def check_onnxruntime(variant: str, target: str) -> None:
    """Checks that the installed ONNX Runtime computes graphs of `variant` for `target` right on a CPU.

    Raises:
        BackendUnavailableError: it is not installed, or too old for such graphs, see `NEEDED`.
    """
    onnxruntime = import_onnxruntime()
    needed = NEEDED.get((variant, target), LOWEST)
    if is_older(onnxruntime, needed):
        raise BackendUnavailableError(
            f"onnxruntime {onnxruntime.__version__} is too old to compute {variant} graphs for {target.upper()}s on a "
            f"CPU, {needed} or newer is needed (the graph is not at fault); upgrade it: "
            f"pip install -U 'onnxruntime>={needed}'"
        )


def is_older(onnxruntime: Any, needed: str) -> bool:
    """Whether the package's release, by its first three numbers, is before `needed`."""
    return version(onnxruntime.__version__)[:3] < version(needed)[:3]
