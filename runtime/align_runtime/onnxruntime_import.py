"""Importing ONNX Runtime, in one place: without its telemetry."""

from __future__ import annotations

import os
from typing import Any

SWITCH = "ORT_DISABLE_TELEMETRY"


def import_onnxruntime() -> Any:
    """The package `onnxruntime`.

    From 1.29 on it starts a thread at import that sends usage data. That thread does not survive a fork, and a child
    that waits for it, or finds one of its locks taken, hangs. So it is switched off, unless `SWITCH` is set to
    something else or the package was imported before.

    Raises:
        ImportError: it is not installed.
    """
    os.environ.setdefault(SWITCH, "1")
    import onnxruntime

    return onnxruntime
