"""pyarrow, imported when it is first used."""

from __future__ import annotations

from typing import Any

from align_runtime.errors import BackendUnavailableError

INSTALL = "pip install 'align-onnx[serving]'"


def import_pyarrow() -> tuple[Any, Any]:
    """The modules ``pyarrow`` and ``pyarrow.parquet``.

    Raises:
        BackendUnavailableError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise BackendUnavailableError(
            f"pyarrow, which reads and writes Parquet, cannot be imported ({error}); install it with: {INSTALL}"
        ) from None
    return pyarrow, pyarrow.parquet
