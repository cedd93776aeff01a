"""What a written graph computes in, for the manifest, and that it may be called what it is called."""

from __future__ import annotations

from pathlib import Path

from align_runtime.errors import BuildError, BundleError
from align_runtime.precision import GraphContent, check_precision, content_of


def proven_content(folder: Path, name: str, precision: str, sequence: int) -> GraphContent:
    """Counts the graph `name` in `folder` as ``align-verify`` will; `sequence` is the model's maximal length.

    Raises:
        BuildError: the graph cannot be counted: a type or shape is missing, operands have different types.
        PrecisionError: it does not compute in `precision`.
    """
    try:
        content = content_of(folder / name, sequence)
    except BundleError as error:
        raise BuildError(str(error)) from None
    check_precision(name, precision, content)
    return content
